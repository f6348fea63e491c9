//! Configuration from real registries: the promises of all, and those of one.
//!
//! Beside `tower_sd_config` this needs the backends, which it does not depend on itself.

mod consul;
mod etcd;
mod promises;
mod scripted;
mod support;
mod zookeeper;
