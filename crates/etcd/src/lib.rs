#![doc = include_str!("../README.md")]

mod client;
mod codec;
mod config;
mod error;
mod instancer;
mod key;
mod registrar;

pub use client::EtcdClient;
pub use codec::{Codec, NamingJson};
pub use config::{EtcdConfig, User};
pub use instancer::EtcdInstancer;
pub use registrar::EtcdRegistrar;
