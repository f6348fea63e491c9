#![doc = include_str!("../README.md")]

mod address;
mod advertise;
mod announce;
mod announcer;
mod backoff;
mod chain;
mod config;
mod counters;
pub mod duration;
mod error;
mod filtered;
mod fixed;
mod follow;
mod handle;
mod health;
mod hub;
mod instance;
mod instance_id;
mod instance_status;
mod key_value;
mod memory;
mod panics;
mod publisher;
mod registrar;
mod registration;
mod registration_state;
mod registry;
mod rotating;
mod schemes;
pub mod secret;
mod sink;
mod snapshot;
mod source;
mod subscription;
mod tasks;
mod tls;
pub mod url;
mod user;

pub use address::{AddressPolicy, AddressRejected};
pub use advertise::AdvertiseAddress;
pub use announce::announce;
pub use announcer::{Announcement, Announcer, LeaseTtl, LossReason, Renewal};
pub use async_trait::async_trait;
pub use backoff::Backoff;
pub use chain::{causes, chain, clipped};
pub use config::{AnnounceConfig, FollowConfig, LossGuard, LossPolicy, RegistryConfig};
pub use counters::PublisherStats;
pub use error::{BoxError, Error, ErrorKind, Result};
pub use filtered::FilteredInstancer;
pub use fixed::FixedInstancer;
pub use follow::{Follower, follow};
pub use handle::{RegistrationHandle, RegistrationWatch};
pub use health::{CheckResult, HealthCheck};
pub use hub::{Attached, Hub};
pub use instance::Instance;
pub use instance_id::InstanceId;
pub use instance_status::InstanceStatus;
pub use key_value::KeyValue;
pub use memory::MemoryRegistry;
pub use publisher::Publisher;
pub use registrar::Registrar;
pub use registration::Registration;
pub use registration_state::{RegistrationState, RegistrationStats};
pub use registry::{Backend, Registry};
pub use rotating::{Rotated, Rotating};
pub use schemes::Schemes;
pub use secret::Secret;
pub use sink::{Entries, Sink};
pub use snapshot::{Freshness, Snapshot};
pub use source::{ReadMode, ReadRequest, ReadResult, Source};
pub use subscription::{Instancer, Subscription};
pub use tasks::{Shutdown, StopOnDrop, TaskGroup};
pub use tls::{Pem, TlsConfig, TlsMaterial};
pub use url::RegistryUrl;
pub use user::User;

#[cfg(test)]
mod tests {
    use super::*;

    fn send_sync<T: ?Sized + Send + Sync>() {}

    #[test]
    fn public_types_are_send_and_sync_and_traits_are_dyn_compatible() {
        send_sync::<(Instance, Snapshot, Subscription, Error, Backoff)>();
        send_sync::<(Registration, RegistrationHandle, RegistrationWatch, FixedInstancer)>();
        send_sync::<(MemoryRegistry, Publisher, Follower, TaskGroup)>();
        send_sync::<(Registry, Schemes)>();
        send_sync::<dyn Instancer>();
        send_sync::<dyn Registrar>();
        send_sync::<Box<dyn HealthCheck>>();
    }
}
