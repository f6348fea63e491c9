#![doc = include_str!("../README.md")]

mod cases;
mod fixture;
mod runner;
mod scene;
pub mod servers;

pub use cases::{CASES, Case};
pub use fixture::{Clock, Fixture, TestInstancer, TestRegistrar};
pub use runner::{run, run_on};
