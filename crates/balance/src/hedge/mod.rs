//! Sending a request to a second instance while the first has not answered.

mod future;
mod policy;
mod service;
mod shared;

pub use self::{
    future::HedgeFuture,
    policy::HedgePolicy,
    service::{Hedge, HedgeLayer},
};
