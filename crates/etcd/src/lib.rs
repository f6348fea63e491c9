#![doc = include_str!("../README.md")]

mod client;
mod codec;
mod config;
mod error;
mod instancer;
mod key;
mod kv;
mod registrar;
mod source;

pub use client::EtcdClient;
pub use codec::{Codec, KitexJson, KratosJson, NamingJson, RawAddress};
pub use config::{EtcdConfig, User};
pub use instancer::EtcdInstancer;
pub use kv::EtcdKvSource;
pub use registrar::EtcdRegistrar;

/// The name of this backend in errors and logs.
pub(crate) const BACKEND: &str = "etcd";
