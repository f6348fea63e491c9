//! The instancer on real servers: BIND's `named`, whose zone `nsupdate` changes, and Consul.

mod bind;
mod consul;
mod outage;
mod scene;
mod traffic;
