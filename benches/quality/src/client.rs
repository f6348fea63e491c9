//! One client of a run, with the policy that it balances by.

use std::sync::Arc;

use fastrand::Rng;
use futures_util::future::BoxFuture;
use tokio::time::{Duration, sleep};
use tower::{
    Layer, Service, ServiceExt,
    balance::p2c,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma},
};
use tower_sd_balance::{
    Balance, BalanceLayer, Balancer, BoxError, EndpointState, Endpointer, FixedInstancer, Instance,
    LeastLoaded, Random, RoundRobin,
};

use crate::{
    node::Node,
    probing::{C3, Prequal},
    world::World,
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Policy {
    TowerPeakEwma,
    LeastLoaded,
    LeastRequests,
    PeakEwma,
    RoundRobin,
    Random,
    Prequal,
    C3,
}

pub enum Client {
    Ours(Balance<Node>, #[expect(dead_code, reason = "keeps it")] Endpointer<Node>),
    Tower(Box<p2c::Balance<ServiceList<Vec<PeakEwma<Node>>>, ()>>),
    Prequal(Box<Prequal>),
    C3(C3),
}

impl Policy {
    /// The baseline first.
    pub const ALL: [Self; 8] = [
        Self::TowerPeakEwma,
        Self::LeastLoaded,
        Self::LeastRequests,
        Self::PeakEwma,
        Self::RoundRobin,
        Self::Random,
        Self::Prequal,
        Self::C3,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::TowerPeakEwma => "tower_peak_ewma",
            Self::LeastLoaded => "least_loaded",
            Self::LeastRequests => "least_requests",
            Self::PeakEwma => "peak_ewma",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::Prequal => "prequal",
            Self::C3 => "c3",
        }
    }
}

impl Client {
    pub async fn new(policy: Policy, world: &Arc<World>, n_clients: usize, seed: u64) -> Self {
        match policy {
            Policy::TowerPeakEwma => Self::Tower(Box::new(tower(world, seed))),
            Policy::LeastLoaded => ours(world, LeastLoaded::new(), seed).await,
            Policy::LeastRequests => ours(world, LeastLoaded::least_requests(), seed).await,
            Policy::PeakEwma => ours(world, LeastLoaded::peak_ewma(), seed).await,
            Policy::RoundRobin => ours(world, RoundRobin::new(), seed).await,
            Policy::Random => ours(world, Random::new(), seed).await,
            Policy::Prequal => Self::Prequal(Box::new(Prequal::new(Arc::clone(world), seed))),
            Policy::C3 => Self::C3(C3::new(Arc::clone(world), n_clients, seed)),
        }
    }

    /// Sends a request now.
    pub async fn send(&mut self) -> BoxFuture<'static, Result<(), BoxError>> {
        match self {
            Self::Ours(balance, _) => Box::pin(balance.call(())),
            Self::Tower(balance) => {
                let call = balance.ready().await.expect("ready").call(());
                Box::pin(call)
            }
            Self::Prequal(prequal) => prequal.send(),
            Self::C3(c3) => c3.send(),
        }
    }
}

fn nodes(world: &Arc<World>) -> impl Iterator<Item = Node> {
    (0..world.len()).map(|index| Node { world: Arc::clone(world), index })
}

/// With linkerd's settings.
fn tower(world: &Arc<World>, seed: u64) -> p2c::Balance<ServiceList<Vec<PeakEwma<Node>>>, ()> {
    let (default, decay_ns) = (Duration::from_millis(30), 10e9);
    let one = |node| PeakEwma::new(node, default, decay_ns, CompleteOnResponse::default());
    let list = ServiceList::new(nodes(world).map(one).collect::<Vec<_>>());
    p2c::Balance::from_rng(list, Seeded(Rng::with_seed(seed)))
}

struct Seeded(Rng);

impl tower::util::rng::Rng for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }
}

async fn ours(world: &Arc<World>, balancer: impl Balancer, seed: u64) -> Client {
    let ports = 1..=u16::try_from(world.len()).expect("few");
    let instancer = FixedInstancer::new(ports.map(|port| Instance::new("h", port)));
    let all: Arc<[Node]> = nodes(world).collect();
    let endpointer = Endpointer::with(&instancer, move |instance| {
        let node = all[usize::from(instance.port()) - 1].clone();
        async move { Ok(node) }
    });
    let is_ready = |endpointer: &Endpointer<Node>| {
        endpointer.report().endpoints.iter().all(|it| it.state == EndpointState::Ready)
    };
    while endpointer.report().endpoints.is_empty() || !is_ready(&endpointer) {
        sleep(Duration::from_millis(1)).await;
    }
    let balance = BalanceLayer::new(balancer).with_seed(seed).layer(endpointer.clone());
    Client::Ours(balance, endpointer)
}
