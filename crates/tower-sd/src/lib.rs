#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod schemes;

#[cfg(feature = "config")]
pub use tower_sd_config as config;
#[cfg(feature = "consul")]
pub use tower_sd_consul as consul;
pub use tower_sd_core as core;
#[cfg(feature = "dns")]
pub use tower_sd_dns as dns;
#[cfg(feature = "etcd")]
pub use tower_sd_etcd as etcd;
#[cfg(feature = "http")]
pub use tower_sd_http as http;
#[cfg(feature = "lifecycle")]
pub use tower_sd_lifecycle as lifecycle;
#[cfg(feature = "grpc")]
pub use tower_sd_tonic as grpc;

pub use schemes::{open, schemes};
pub use tower_sd_balance::*;
pub use tower_sd_core::{Registry, RegistryConfig, Schemes};
