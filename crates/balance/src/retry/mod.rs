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
    policy::{Next, RetryPolicy},
    protocol::{Cloned, Protocol},
    service::Retry,
};
