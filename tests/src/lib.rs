//! Tests across the crates, against real servers and real processes.

#[doc = include_str!("../../README.md")]
#[cfg(doctest)]
pub struct Readme;
