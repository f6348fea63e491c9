#![doc = include_str!("../README.md")]

mod attempt;
mod balance;
mod endpointer;
mod retry;
mod sync;
mod unsent;

pub use tower_sd_core::{
    AddressPolicy, Advertise, AnnounceConfig, Announcement, Announcer, Attached, Backoff, BoxError,
    Entries, Error, ErrorKind, FilteredInstancer, FixedInstancer, FollowConfig, Follower,
    Freshness, Health, HealthCheck, Hub, Instance, InstanceId, Instancer, LeaseTtl, LossGuard,
    LossPolicy, LossReason, MemoryConfig, MemoryRegistry, Publisher, PublisherConfig,
    PublisherStats, ReadMode, ReadReason, ReadRequest, ReadResult, Refused, Registrar,
    Registration, RegistrationHandle, RegistrationState, RegistrationStats, RegistrationWatch,
    Renewal, Result, Secret, Sink, Snapshot, Source, StalePolicy, Status, Stop, Subscription,
    Tasks, announce, async_trait, follow,
};

pub use self::{
    balance::{
        Balance, BalanceLayer, Balancer, Choice, Members, Picker, Prioritized, Random,
        ResponseFuture, RoundRobin, WeightedRandom,
    },
    endpointer::{
        EndpointReport, EndpointState, Endpointer, EndpointerConfig, Factory, FactoryFn,
        FailureClass, Lease, NoInstances, NoInstancesReason, Outcome, Outcomes, Report, Served,
        factory_fn,
    },
    retry::{
        Attempt, Cloned, Elapsed, Next, Protocol, Retry, RetryError, RetryFuture, RetryLayer,
        RetryPolicy, Verdict,
    },
    unsent::Unsent,
};
