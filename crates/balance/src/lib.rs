#![doc = include_str!("../README.md")]

mod balance;
mod caller_deadline;
mod endpointer;
mod error;
mod factory_ext;
mod hedge;
mod not_sent;
mod not_serving;
mod outcome;
mod overloaded;
mod retry;
mod scope;
mod scope_layer;
mod sync;

pub use tower_sd_core::{
    AddressPolicy, AddressRejected, AdvertiseAddress, AnnounceConfig, Announcement, Announcer,
    Attached, Backoff, BoxError, CheckResult, Entries, Error, ErrorKind, FilteredInstancer,
    FixedInstancer, FollowConfig, Follower, Freshness, HealthCheck, Hub, Instance, InstanceId,
    InstanceStatus, Instancer, LeaseTtl, LossGuard, LossPolicy, LossReason, MemoryRegistry,
    Publisher, PublisherStats, ReadMode, ReadRequest, ReadResult, Registrar, Registration,
    RegistrationHandle, RegistrationState, RegistrationStats, RegistrationWatch, RegistryConfig,
    Renewal, Result, Secret, Shutdown, Sink, Snapshot, Source, StalePolicy, Subscription,
    TaskGroup, announce, async_trait, follow,
};

pub use self::{
    balance::{
        Balance, BalanceLayer, Balancer, Choice, Fallback, LeastLoaded, Maglev, Members, Picker,
        Prioritized, Random, Rendezvous, ResponseFuture, RoundRobin, Select, Split, TestSet,
        WeightedRandom, ZoneAware,
    },
    caller_deadline::{CallerDeadline, CallerDeadlineFuture},
    endpointer::{
        ActiveCheck, Discovered, Ejection, EjectionPolicy, EjectionReason, EjectionReport,
        EndpointReport, EndpointState, EndpointStats, Endpointer, EndpointerConfig,
        EndpointerReport, Factory, FactoryFn, InFlight, Limits, LimitsReport, Outcomes, Served,
        Subset, Tier, TierPolicy, factory_fn,
        observer::{Event, Observer},
    },
    error::{NoInstances, NoInstancesReason},
    factory_ext::{Classified, ClassifiedFuture, FactoryExt},
    hedge::{Hedge, HedgeFuture, HedgeLayer, HedgePolicy},
    not_sent::NotSent,
    not_serving::NotServing,
    outcome::{FailureClass, Outcome},
    overloaded::{Limit, Overloaded},
    retry::{
        Attempt, CloneRequest, Elapsed, Protocol, Retry, RetryBudget, RetryBudgetReport,
        RetryDecision, RetryError, RetryFuture, RetryLayer, RetryPolicy, Verdict, Withdrawal,
    },
    scope::RequestScope,
    scope_layer::{ScopeLayer, Scoped, ScopedFuture},
};
