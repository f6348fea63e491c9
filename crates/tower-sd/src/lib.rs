#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod schemes;

/// Layers that send each request to one endpoint, and the policies that choose it.
pub mod balance {
    pub use tower_sd_balance::{
        Balance, BalanceLayer, Balancer, Choice, Fallback, LeastLoaded, Maglev, Members, Picker,
        Prioritized, Random, Rendezvous, ResponseFuture, RoundRobin, Select, Split, TestSet, Tier,
        WeightedRandom, ZoneAware,
    };
}

/// For authors of backends, combinators and wrappers.
///
/// The two halves of the wire, and the two loops.
pub mod backend {
    pub use tower_sd_core::{
        Announcement, Announcer, Attached, Backend, Backoff, Entries, Error, ErrorKind, Hub,
        Instance, KeyValue, LeaseTtl, LossReason, Publisher, PublisherStats, ReadMode, ReadRequest,
        ReadResult, RegistryUrl, Renewal, Result, Rotated, Rotating, Shutdown, Sink, Source,
        TaskGroup, announce, async_trait, chain, duration, follow,
    };
}

/// What is registered and followed, and how.
///
/// Instances, snapshots, settings of a registry.
pub mod discovery {
    pub use tower_sd_core::{
        AddressPolicy, AddressRejected, AdvertiseAddress, AnnounceConfig, CheckResult,
        FilteredInstancer, FollowConfig, Follower, Freshness, HealthCheck, InstanceId,
        InstanceStatus, LossGuard, LossPolicy, RegistrationState, RegistrationStats,
        RegistrationWatch, RegistryConfig, Secret, Snapshot, Subscription,
    };
}

/// One live service per instance, with its statistics.
pub mod endpoint {
    pub use tower_sd_balance::{
        ActiveCheck, Classified, ClassifiedFuture, Discovered, Ejection, EjectionPolicy,
        EjectionReason, EjectionReport, EndpointReport, EndpointState, EndpointStats, Endpointer,
        EndpointerConfig, EndpointerReport, Event, Factory, FactoryExt, FailureClass, InFlight,
        Limit, Limits, LimitsReport, NoInstances, NoInstancesReason, NotServing, Observer, Outcome,
        Outcomes, Overloaded, RequestScope, ScopeLayer, Scoped, ScopedFuture, Served, Subset,
        factory_fn,
    };
}

/// Layers that repeat requests, at best each time at another instance.
pub mod retry {
    pub use tower_sd_balance::{
        Attempt, CallerDeadline, CloneRequest, Elapsed, Hedge, HedgeFuture, HedgeLayer,
        HedgePolicy, NotSent, Protocol, Retry, RetryBudget, RetryBudgetReport, RetryDecision,
        RetryError, RetryFuture, RetryLayer, RetryPolicy, Verdict, Withdrawal,
    };
}

/// Settings of TLS.
pub mod tls {
    pub use tower_sd_core::{Pem, TlsConfig};
}

#[cfg(feature = "config")]
pub use tower_sd_config as config;
#[cfg(feature = "consul")]
pub use tower_sd_consul as consul;
#[cfg(feature = "dns")]
pub use tower_sd_dns as dns;
#[cfg(feature = "etcd")]
pub use tower_sd_etcd as etcd;
#[cfg(feature = "eureka")]
pub use tower_sd_eureka as eureka;
#[cfg(feature = "http")]
pub use tower_sd_http as http;
#[cfg(feature = "reqwest")]
pub use tower_sd_http::reqwest;
#[cfg(feature = "kubernetes")]
pub use tower_sd_kubernetes as kubernetes;
#[cfg(feature = "lifecycle")]
pub use tower_sd_lifecycle as lifecycle;
#[cfg(feature = "grpc")]
pub use tower_sd_tonic as grpc;
#[cfg(feature = "zookeeper")]
pub use tower_sd_zookeeper as zookeeper;

pub use schemes::{open, schemes};
pub use tower_sd_core::{
    BoxError, Error, ErrorKind, FixedInstancer, Instance, Instancer, MemoryRegistry, Registrar,
    Registration, RegistrationHandle, Registry, Result, Schemes,
};
