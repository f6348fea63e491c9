//! Sending a request again, to another instance.

mod budget;
mod error;
mod future;
mod policy;
mod protocol;
mod service;
mod story;

pub use self::{
    budget::{RetryBudget, RetryBudgetReport, Withdrawal},
    error::{Attempt, Elapsed, RetryError},
    future::RetryFuture,
    policy::{RetryDecision, RetryPolicy},
    protocol::{CloneRequest, Protocol, Verdict},
    service::{Retry, RetryLayer},
};
