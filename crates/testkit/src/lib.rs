#![doc = include_str!("../README.md")]

pub mod absence;
mod cases;
mod fixture;
pub mod load;
pub mod log;
pub mod loopback;
mod outage;
pub mod process;
pub mod proxy;
pub mod real;
mod runner;
mod scene;
pub mod script;
pub mod servers;
pub mod stall;
pub mod usage;
pub mod wait;
pub mod wire;

pub use cases::{CASES, Case};
pub use fixture::{Clock, Fixture, TestClient, TestInstancer};
pub use runner::{run, run_on};
