//! On real servers, of every version there is; and on a scripted one, for what those do not do when they are asked to.

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
