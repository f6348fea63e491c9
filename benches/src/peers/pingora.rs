//! pingora's load balancer. It picks a backend; what to do with it is the caller's.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures_util::FutureExt;
use pingora_load_balancing::{
    Backend, Backends, LoadBalancer,
    discovery::ServiceDiscovery,
    selection::{Consistent, RoundRobin},
};
use tower::Service;

/// Picks as pingora does, and answers.
#[derive(Clone)]
pub struct PingoraRoundRobin(Arc<LoadBalancer<RoundRobin>>);

impl PingoraRoundRobin {
    pub fn new(n: usize) -> Self {
        let list = List::default();
        list.set((0..n).map(backend).collect());
        Self(Arc::new(list.balancer()))
    }
}

impl Service<()> for PingoraRoundRobin {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        // 256: the number of tries in pingora's own example.
        let picked = self.0.select(b"", 256).expect("there is one");
        drop(black_box(picked));
        ready(Ok(0))
    }
}

/// Picks by pingora's ring of hashes, with another key for each request.
#[derive(Clone)]
pub struct PingoraKetama {
    balancer: Arc<LoadBalancer<Consistent>>,
    key: u64,
}

impl PingoraKetama {
    pub fn new(n: usize) -> Self {
        let list = List::default();
        list.set((0..n).map(backend).collect());
        let balancer = LoadBalancer::from_backends(Backends::new(Box::new(list)));
        balancer.update().now_or_never().expect("it waits for nothing").expect("a list");
        Self { balancer: Arc::new(balancer), key: 0 }
    }
}

impl Service<()> for PingoraKetama {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.key = self.key.wrapping_add(1);
        let picked = self.balancer.select(&self.key.to_le_bytes(), 256).expect("there is one");
        drop(black_box(picked));
        ready(Ok(0))
    }
}

/// A discovery whose answer is set by hand.
#[derive(Clone, Default)]
pub struct List(Arc<Mutex<BTreeSet<Backend>>>);

impl List {
    pub fn set(&self, backends: BTreeSet<Backend>) {
        *self.0.lock().expect("not poisoned") = backends;
    }

    /// A balancer that has read the list.
    pub fn balancer(&self) -> LoadBalancer<RoundRobin> {
        let balancer = LoadBalancer::from_backends(Backends::new(Box::new(self.clone())));
        update(&balancer);
        balancer
    }
}

#[async_trait]
impl ServiceDiscovery for List {
    async fn discover(&self) -> pingora_error::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        Ok((self.0.lock().expect("not poisoned").clone(), HashMap::new()))
    }
}

/// Reads the list and publishes it.
pub fn update(balancer: &LoadBalancer<RoundRobin>) {
    let updated = balancer.update().now_or_never().expect("it waits for nothing");
    updated.expect("the list can be read");
}

pub fn backend(i: usize) -> Backend {
    let address = format!("10.{}.{}.{}:8080", i >> 16 & 255, i >> 8 & 255, i & 255);
    Backend::new(&address).expect("an address")
}
