//! The instancer on a scripted name server.
//!
//! It gives the answers that no real server gives on demand.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod failures;
mod pace;
mod refresh;
mod rotation;
mod scene;
mod targets;
mod transports;
