//! On real agents, of every version there is.
#![expect(clippy::future_not_send, reason = "each test runs on one thread")]

mod acl;
mod cluster;
mod following;
mod guarded;
mod keys;
mod many;
mod ownership;
mod registering;
mod slow;
mod support;
mod tls;
