//! go-kit's shape in Rust: a read lock around the list, and one counter for all.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Future, Ready},
    pin::Pin,
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tower::Service;

use crate::noop::Noop;

/// Round robin, without any notion of a request in flight.
#[derive(Clone)]
pub struct RoundRobin(Arc<(RwLock<Vec<Noop>>, AtomicUsize)>);

impl RoundRobin {
    pub fn new(n: usize) -> Self {
        Self(Arc::new((RwLock::new(services(n)), AtomicUsize::new(0))))
    }
}

impl Service<()> for RoundRobin {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: ()) -> Self::Future {
        let (services, counter) = &*self.0;
        let mut picked = {
            let services = services.read().expect("not poisoned");
            services[counter.fetch_add(1, Relaxed) % services.len()].clone()
        };
        picked.call(request)
    }
}

/// The same, where each response holds a lease of its endpoint, as in ours.
#[derive(Clone)]
pub struct RoundRobinLease(Arc<(RwLock<Vec<Leased>>, AtomicUsize)>);

type Leased = (Noop, Arc<()>);

impl RoundRobinLease {
    pub fn new(n: usize) -> Self {
        let services = services(n).into_iter().map(|service| (service, Arc::new(()))).collect();
        Self(Arc::new((RwLock::new(services), AtomicUsize::new(0))))
    }
}

impl Service<()> for RoundRobinLease {
    type Response = u32;
    type Error = Infallible;
    type Future = LeaseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: ()) -> LeaseFuture {
        let (services, counter) = &*self.0;
        let (mut picked, lease) = {
            let services = services.read().expect("not poisoned");
            services[counter.fetch_add(1, Relaxed) % services.len()].clone()
        };
        LeaseFuture { future: picked.call(request), lease: Some(lease) }
    }
}

pub struct LeaseFuture {
    future: Ready<Result<u32, Infallible>>,
    lease: Option<Arc<()>>,
}

impl Future for LeaseFuture {
    type Output = Result<u32, Infallible>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.future).poll(cx);
        if polled.is_ready() {
            self.lease = None;
        }
        polled
    }
}

/// go-kit's cache of endpoints.
///
/// Every update sorts the list, searches every instance, and builds the list of endpoints
/// anew, all of it under the one lock.
#[derive(Default)]
pub struct Cache(RwLock<Entries>);

#[derive(Default)]
struct Entries {
    by_instance: HashMap<String, Arc<Noop>>,
    endpoints: Vec<Arc<Noop>>,
}

impl Cache {
    /// go-kit's `updateCache`.
    pub fn update(&self, mut instances: Vec<String>) {
        instances.sort();
        let mut entries = self.0.write().expect("not poisoned");
        let mut cache = HashMap::with_capacity(instances.len());
        for instance in instances {
            let endpoint = match entries.by_instance.remove(&instance) {
                Some(known) => known,
                None => Arc::new(Noop(0)),
            };
            cache.insert(instance, endpoint);
        }
        let mut keys: Vec<_> = cache.keys().collect();
        keys.sort();
        let endpoints = keys.into_iter().map(|key| Arc::clone(&cache[key])).collect();
        *entries = Entries { by_instance: cache, endpoints };
    }

    pub fn len(&self) -> usize {
        self.0.read().expect("not poisoned").endpoints.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn services(n: usize) -> Vec<Noop> {
    (0..n).map(|i| Noop(u32::try_from(i).expect("few"))).collect()
}
