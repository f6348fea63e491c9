//! The instancer on real servers: BIND's `named`, and Consul.
//!
//! `nsupdate` changes the zone.

mod bind;
mod consul;
mod outage;
mod scene;
mod traffic;
