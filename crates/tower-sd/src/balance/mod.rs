//! Choosing an endpoint for each request.

mod balancer;
mod cell;
mod error;
mod future;
mod layer;
mod obtain;
mod prioritized;
mod random;
mod round_robin;
mod service;
mod weighted_random;

pub(crate) use self::cell::Cell;
pub use self::{
    balancer::{Balancer, Choice, Members, Picker},
    error::{NoInstances, NoInstancesReason},
    future::ResponseFuture,
    layer::BalanceLayer,
    prioritized::Prioritized,
    random::Random,
    round_robin::RoundRobin,
    service::Balance,
    weighted_random::WeightedRandom,
};
