//! Sending a request again, to another instance.

mod classify;
mod error;
mod future;
mod layer;
mod policy;
mod replay;
mod service;

pub use self::{
    classify::Verdict,
    error::{Attempt, Elapsed, RetryError},
    future::RetryFuture,
    layer::RetryLayer,
    policy::{Next, RetryPolicy},
    replay::{Classify, Cloned, Replay},
    service::Retry,
};
