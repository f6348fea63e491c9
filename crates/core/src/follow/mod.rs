//! The following loop: reads a source indefinitely, and feeds a sink.

mod follower;
mod nudges;
mod rate_limit;
#[cfg(test)]
mod tests;
mod worker;

pub use self::{follower::Follower, worker::follow};
