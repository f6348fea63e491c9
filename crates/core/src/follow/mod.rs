//! The following loop: reads a source indefinitely, and feeds a sink.

mod config;
mod follower;
mod nudges;
mod rate_limit;
mod sink;
#[cfg(test)]
mod tests;
mod worker;

pub use self::{
    config::FollowConfig,
    follower::Follower,
    sink::{Entries, Sink},
    worker::follow,
};
