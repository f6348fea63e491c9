//! Sending a request again, to another instance.

mod classify;
mod error;
mod future;
mod layer;
mod policy;
mod protocol;
mod service;

pub use self::{
    classify::Verdict,
    error::{Attempt, Elapsed, RetryError},
    future::RetryFuture,
    layer::RetryLayer,
    policy::{RetryDecision, RetryPolicy},
    protocol::{CloneRequest, Protocol},
    service::Retry,
};
