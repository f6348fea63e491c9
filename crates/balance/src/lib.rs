#![doc = include_str!("../README.md")]

mod attempt;
mod balance;
mod endpointer;
mod retry;
mod sync;
mod unsent;

pub use tower_sd_core::{
    AddressPolicy, AddressRejected, AdvertiseAddress, AnnounceConfig, Announcement, Announcer,
    Attached, Backoff, BoxError, CheckResult, Entries, Error, ErrorKind, FilteredInstancer,
    FixedInstancer, FollowConfig, Follower, Freshness, HealthCheck, Hub, Instance, InstanceId,
    InstanceStatus, Instancer, LeaseTtl, LossGuard, LossPolicy, LossReason, MemoryConfig,
    MemoryRegistry, Publisher, PublisherConfig, PublisherStats, ReadMode, ReadReason, ReadRequest,
    ReadResult, Registrar, Registration, RegistrationHandle, RegistrationState, RegistrationStats,
    RegistrationWatch, Renewal, Result, Secret, Shutdown, Sink, Snapshot, Source, StalePolicy,
    Subscription, TaskGroup, announce, async_trait, follow,
};

pub use self::{
    balance::{
        Balance, BalanceLayer, Balancer, Choice, Members, Picker, Prioritized, Random,
        ResponseFuture, RoundRobin, WeightedRandom,
    },
    endpointer::{
        EndpointReport, EndpointState, Endpointer, EndpointerConfig, EndpointerReport, Factory,
        FactoryFn, FailureClass, InFlight, NoInstances, NoInstancesReason, Outcome, Outcomes,
        Served, factory_fn,
    },
    retry::{
        Attempt, CloneRequest, Elapsed, Protocol, Retry, RetryDecision, RetryError, RetryFuture,
        RetryLayer, RetryPolicy, Verdict,
    },
    unsent::NotSent,
};
