//! Networks that fail.
//!
//! Each test has a network namespace of its own, which not every machine grants: they run with
//! `--slow`.
#![cfg(target_os = "linux")]

mod namespace;
mod slow;
