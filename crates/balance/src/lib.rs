#![doc = include_str!("../README.md")]

mod balance;
mod caller_deadline;
mod endpointer;
mod error;
mod factory_ext;
mod hedge;
mod limits;
mod outcome;
mod restore;
mod retry;
mod scope;
mod scope_layer;
mod sync;

pub use tower_sd_core::{
    AddressPolicy, Backoff, BoxError, Error, ErrorKind, FixedInstancer, Freshness, Instance,
    InstanceId, InstanceStatus, Instancer, LossPolicy, Publisher, Registration, RegistrationHandle,
    RegistryConfig, Result, Shutdown, Sink, Snapshot, Subscription, TaskGroup, async_trait, causes,
};

pub use self::{
    balance::{
        Balance, BalanceLayer, Balancer, Choice, Fallback, LeastLoaded, Maglev, Members, Picker,
        Prioritized, Random, Rendezvous, ResponseFuture, RoundRobin, Select, Split, TestSet,
        WeightedRandom, ZoneAware,
    },
    caller_deadline::CallerDeadline,
    endpointer::{
        ActiveCheck, Discovered, Ejection, EjectionPolicy, EjectionReason, EjectionReport,
        EndpointReport, EndpointState, EndpointStats, Endpointer, EndpointerConfig,
        EndpointerReport, Factory, InFlight, Outcomes, Served, Subset, Tier, factory_fn,
        observer::{Event, Observer},
    },
    error::{Limit, NoInstances, NoInstancesReason, NotSent, NotServing, Overloaded},
    factory_ext::{Classified, ClassifiedFuture, FactoryExt},
    hedge::{Hedge, HedgeFuture, HedgeLayer, HedgePolicy},
    limits::{Limits, LimitsReport},
    outcome::{FailureClass, Outcome},
    retry::{
        Attempt, CloneRequest, Elapsed, Protocol, Retry, RetryBudget, RetryBudgetReport,
        RetryDecision, RetryError, RetryFuture, RetryLayer, RetryPolicy, Verdict, Withdrawal,
    },
    scope::RequestScope,
    scope_layer::{ScopeLayer, Scoped, ScopedFuture},
};
