#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod connection;
mod glue;
mod hooks;
mod lifecycle;
mod listener;
mod readiness;
mod registrations;
mod report;
mod run;
mod server;
mod signals;
mod steps;
mod stop_orders;
#[cfg(feature = "tls")]
mod tls;

pub use connection::Connection;
#[cfg(feature = "axum")]
pub use glue::axum::{ready_route, serve_axum};
#[cfg(feature = "tonic")]
pub use glue::{health::ready_health, tonic::serve_tonic};
pub use lifecycle::Lifecycle;
pub use listener::Listener;
pub use readiness::Readiness;
pub use registrations::Registrations;
pub use report::{LifecycleError, Report};
pub use server::ShutdownSignal;
