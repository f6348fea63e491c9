//! On a real API server: its outages, its access control, its sizes.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod large;
mod manifests;
mod many;
mod outage;
mod rollout;
mod scene;
