//! On real servers, of every version there is.

mod auth;
mod cluster;
mod leases;
mod support;
mod tls;
mod traffic;
mod watches;
