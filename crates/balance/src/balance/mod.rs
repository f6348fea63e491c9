//! Choosing an endpoint for each request.

mod balancer;
mod cell;
mod future;
mod layer;
mod prioritized;
mod random;
mod round_robin;
mod search;
mod service;
mod weighted_random;

pub(crate) use self::cell::Cell;
#[cfg(test)]
pub(crate) use self::cell::Excluded;
pub use self::{
    balancer::{Balancer, Choice, Members, Picker},
    future::ResponseFuture,
    layer::BalanceLayer,
    prioritized::Prioritized,
    random::Random,
    round_robin::RoundRobin,
    service::Balance,
    weighted_random::WeightedRandom,
};
