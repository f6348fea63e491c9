#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod connections;
mod control;
mod glue;
mod hooks;
mod lifecycle;
mod orders;
mod readiness;
mod registrations;
mod report;
mod run;
mod server;
mod signals;
mod socket;
mod steps;
#[cfg(feature = "tls")]
mod tls;

pub use connections::{Connection, Connections, Listener};
#[cfg(feature = "axum")]
pub use glue::{
    axum::{ready_route, serve_axum},
    close::{ConnectionClose, ConnectionCloseFuture, ConnectionCloseLayer},
};
#[cfg(feature = "tonic")]
pub use glue::{health::ready_health, tonic::serve_tonic};
pub use lifecycle::Lifecycle;
pub use readiness::{Readiness, ReadinessState};
pub use registrations::Registrations;
pub use report::{LifecycleError, Outcome, Reason, Report, Step, StepReport};
pub use server::ShutdownSignal;
pub use signals::{Signal, Signals};
#[cfg(feature = "tls")]
pub use tower_sd_net::TlsServer;

pub use steps::{deregister, enter_maintenance, register_when_ready};
