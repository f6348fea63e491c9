//! Networks that fail: each test has a network namespace of its own.
#![cfg(target_os = "linux")]

mod namespace;
mod vanishing;
