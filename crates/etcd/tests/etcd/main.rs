//! The backend on real servers of every version, and on a scripted one.
//!
//! The scripted one has the faults that real ones do not show on demand.

mod absence;
mod auth;
mod cluster;
mod grpc_proxy;
mod leases;
mod ownership;
mod scripted;
mod stalls;
mod support;
mod tls;
mod traffic;
mod updates;
mod watches;
