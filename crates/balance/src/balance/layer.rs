use std::{fmt, sync::Arc, time::Duration};

use fastrand::Rng;
use tower_layer::Layer;

use super::{Balance, Balancer, LeastLoaded, Shards};
use crate::Endpointer;

/// Turns an [`Endpointer`] into a [`Balance`].
///
/// It stands directly above the endpointer. A layer for each endpoint, such as a timeout, goes on
/// the factory.
#[derive(Clone)]
#[must_use]
pub struct BalanceLayer {
    balancer: Arc<dyn Balancer>,
    wait: Duration,
    seed: Option<u64>,
}

impl BalanceLayer {
    /// Chooses with `balancer`.
    pub fn new(balancer: impl Balancer) -> Self {
        Self { balancer: Arc::new(balancer), wait: WAIT, seed: None }
    }

    /// Bounds the time that a request waits for an endpoint. Defaults to 1 s.
    ///
    /// That is longer than a restart of the last instance takes to be noticed. When it is certain
    /// that there is no instance, a request does not wait.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.wait = timeout;
        self
    }

    /// Derives all chance from this seed: for tests.
    ///
    /// Defaults to one from the operating system.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Chance follows from `rng`, which gives one number for each layer.
    pub fn seed_from(self, rng: &mut impl rand::Rng) -> Self {
        let seed = rng.next_u64();
        self.with_seed(seed)
    }
}

impl<S: Clone + Send + Sync + 'static> Layer<Endpointer<S>> for BalanceLayer {
    type Service = Balance<S>;

    fn layer(&self, endpointer: Endpointer<S>) -> Balance<S> {
        let seeds = self.seed.map_or_else(Rng::new, Rng::with_seed);
        let shards = Arc::new(Shards::new(Arc::clone(&self.balancer), seeds));
        let shared = Arc::clone(endpointer.shared());
        shared.attach(&shards);
        let observers = shared.observers().with(self.balancer.observer());
        Balance::new(shards, shared, self.wait, observers)
    }
}

/// With [`LeastLoaded`].
impl Default for BalanceLayer {
    fn default() -> Self {
        Self::new(LeastLoaded::new())
    }
}

impl fmt::Debug for BalanceLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceLayer")
            .field("balancer", &self.balancer)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

const WAIT: Duration = Duration::from_secs(1);
