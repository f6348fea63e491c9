//! Choosing an endpoint for each request.

mod alias;
mod balancer;
mod fraction;
mod future;
mod inner;
mod least_loaded;
mod local;
mod maglev;
mod members;
mod part;
mod prioritized;
mod random;
mod rendezvous;
mod request;
mod round_robin;
mod select;
mod service;
mod shards;
mod slow_path;
mod split;
mod test_set;
mod waiting;
mod weighted_random;
mod zone_aware;

#[cfg(test)]
pub(crate) use self::request::Request;
pub(crate) use self::shards::Shards;
pub use self::{
    balancer::{Balancer, Choice, Picker},
    future::ResponseFuture,
    least_loaded::LeastLoaded,
    maglev::Maglev,
    members::Members,
    prioritized::Prioritized,
    random::Random,
    rendezvous::Rendezvous,
    round_robin::RoundRobin,
    select::{Fallback, Select},
    service::{Balance, BalanceLayer},
    split::Split,
    test_set::TestSet,
    weighted_random::WeightedRandom,
    zone_aware::ZoneAware,
};
