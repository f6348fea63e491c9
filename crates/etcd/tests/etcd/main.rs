//! On real servers, of every version there is; and on a scripted one, for what those do not do when they are asked to.

mod auth;
mod cluster;
mod leases;
mod scripted;
mod support;
mod tls;
mod traffic;
mod watches;
