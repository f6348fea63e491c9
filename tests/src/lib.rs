//! Tests across the crates, against real servers and real processes.

// README.md names them.
#[cfg(test)]
use tonic_health as _;
#[cfg(test)]
use tower_sd as _;

#[doc = include_str!("../../README.md")]
#[cfg(doctest)]
pub struct Readme;
