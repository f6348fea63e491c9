//! Sending a request again, to another instance.

mod budget;
mod classify;
mod error;
mod future;
mod layer;
mod policy;
mod protocol;
mod service;
mod story;

pub use self::{
    budget::{RetryBudget, RetryBudgetReport, Withdrawal},
    classify::Verdict,
    error::{Attempt, Elapsed, RetryError},
    future::RetryFuture,
    layer::RetryLayer,
    policy::{RetryDecision, RetryPolicy},
    protocol::{CloneRequest, Protocol},
    service::Retry,
};
