//! Service discovery and client-side load balancing for tower.

mod endpointer;
mod retry;
mod unsent;

pub use tower_sd_core::{
    AddressPolicy, Advertise, Backoff, BoxError, Error, ErrorKind, FirstRegistration,
    FixedInstancer, FollowConfig, Follower, Freshness, Health, HealthCheck, Instance, InstanceId,
    Instancer, LossPolicy, Publisher, PublisherConfig, PublisherStats, Refused, Registrar,
    Registration, RegistrationHandle, RegistrationState, Result, Secret, Sink, Snapshot,
    StalePolicy, Status, Subscription, async_trait,
};

pub use self::{
    endpointer::{Factory, FactoryFn, Hold, Lease, ToResponse, factory_fn},
    retry::{Classify, Cloned, Replay, Verdict},
    unsent::Unsent,
};
