//! Code of the user's that panics in the endpointer's task.

use std::{
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt};
use tower_sd_balance::{
    BalanceLayer, Balancer, BoxError, EndpointState, Endpointer, EndpointerConfig, Event, Instance,
    Members, Observer, Picker, RoundRobin, Subset, factory_fn,
};

use crate::support::{Mode, Registry, World, answers, balance, settle};

#[derive(Debug)]
struct Panics;

impl Observer for Panics {
    fn on(&self, event: &Event<'_>) {
        assert!(!matches!(event, Event::State { .. }), "it observes no states");
    }
}

impl Subset for Panics {
    fn select(&self, _instances: &[Instance]) -> Vec<Instance> {
        panic!("it selects nothing")
    }
}

#[tokio::test(start_paused = true)]
async fn panic_of_an_observer_or_a_subset_ends_no_updates() {
    let config = EndpointerConfig::new;
    for config in [config().observer(Arc::new(Panics)), config().subset(Panics)] {
        let (mut registry, world) = (Registry::new(&["a"]), World::default());
        let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
        settle().await;
        assert_eq!(answers(&balance(&endpointer), 2).await, ["a"; 2]);
        registry.set(&["b"]).await;
        assert_eq!(answers(&balance(&endpointer), 2).await, ["b"; 2]);
        assert_eq!(world.n_live("a"), 0);
    }
}

/// Its last clone panics.
#[derive(Clone)]
struct Fragile {
    _on_drop: Arc<OnDrop>,
    host: String,
}

impl Fragile {
    fn new(host: &str) -> Self {
        Self { _on_drop: Arc::new(OnDrop), host: host.to_owned() }
    }
}

struct OnDrop;

impl Drop for OnDrop {
    fn drop(&mut self) {
        // Two panics would end the process.
        assert!(std::thread::panicking(), "the service panics when it is dropped");
    }
}

impl Service<u32> for Fragile {
    type Response = String;
    type Error = BoxError;
    type Future = Ready<Result<String, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        ready(Ok(self.host.clone()))
    }
}

#[tokio::test(start_paused = true)]
async fn service_that_panics_when_it_is_dropped_ends_no_updates() {
    let mut registry = Registry::new(&["a"]);
    let endpointer =
        Endpointer::with(&registry, |instance: Instance| ready(Ok(Fragile::new(instance.host()))));
    let client = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
    assert_eq!(client.clone().oneshot(0).await.unwrap(), "a");
    for host in ["b", "c"] {
        registry.set(&[host]).await;
        assert_eq!(client.clone().oneshot(0).await.unwrap(), host);
    }
    // Its handles are dropped here, which panics for the caller.
    std::mem::forget((client, endpointer));
}

#[tokio::test(start_paused = true)]
async fn factory_that_panics_when_its_time_is_over_runs_again() {
    let (registry, n_runs) = (Registry::new(&["a"]), Arc::<AtomicUsize>::default());
    let runs = Arc::clone(&n_runs);
    let is_alive = Arc::new(AtomicBool::new(false));
    let alive = Arc::clone(&is_alive);
    let factory = factory_fn(move |_: Instance| {
        runs.fetch_add(1, SeqCst);
        let alive = Arc::clone(&alive);
        async move {
            let fragile = Fragile::new("a");
            if !alive.load(SeqCst) {
                sleep(Duration::from_secs(60)).await;
            }
            Ok(fragile)
        }
    });
    let config = EndpointerConfig::new().create_timeout(Duration::from_secs(1));
    let endpointer = Endpointer::with_config(&registry, factory, config);
    sleep(Duration::from_secs(5)).await;
    assert!(n_runs.load(SeqCst) >= 2, "{}", n_runs.load(SeqCst));
    is_alive.store(true, SeqCst);
    let ready = timeout(Duration::from_secs(60), endpointer.ready(Duration::from_secs(60))).await;
    ready.unwrap().unwrap();
    std::mem::forget(endpointer);
}

/// Its clones panic in the task of the endpointer: for a probe, and for requests in flight.
struct Unique(Arc<AtomicBool>, Mode);

impl Clone for Unique {
    fn clone(&self) -> Self {
        // The requests of this test clone it on threads of their own.
        assert!(!self.0.load(SeqCst), "it has no clones");
        Self(Arc::clone(&self.0), self.1)
    }
}

impl Service<u32> for Unique {
    type Response = ();
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self.1 {
            Mode::Fails => Poll::Ready(Err("it refuses".into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, _: u32) -> Self::Future {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn service_that_panics_when_it_is_cloned_ends_no_updates() {
    for mode in [Mode::Fails, Mode::Hangs] {
        let (mut registry, is_unique) = (Registry::new(&["a"]), Arc::new(AtomicBool::new(false)));
        let of_service = Arc::clone(&is_unique);
        let endpointer = Endpointer::with(&registry, move |_: Instance| {
            ready(Ok(Unique(Arc::clone(&of_service), mode)))
        });
        endpointer.ready(Duration::from_secs(1)).await.unwrap();
        let client = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
        let mut request = Box::pin(client.clone().oneshot(0));
        assert!(timeout(Duration::from_millis(1), &mut request).await.is_err());
        is_unique.store(true, SeqCst);
        sleep(Duration::from_secs(5)).await;
        registry.set(&["b", "c"]).await;
        settle().await;
        let report = endpointer.report().endpoints;
        let listed = report.iter().filter(|it| it.state != EndpointState::Draining);
        assert_eq!(listed.count(), 2, "{mode:?}");
        is_unique.store(false, SeqCst);
    }
}

#[derive(Debug)]
struct Uncounted;

impl Balancer for Uncounted {
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker> {
        RoundRobin::new().picker(members)
    }

    fn counts_unusable(&self) -> bool {
        panic!("it counts nothing")
    }
}

#[tokio::test(start_paused = true)]
async fn balancer_that_panics_ends_no_updates() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = Endpointer::with(&registry, world.factory());
    let client = BalanceLayer::new(Uncounted).layer(endpointer.clone());
    assert_eq!(client.clone().oneshot(0).await.unwrap(), "a");
    registry.set(&["b"]).await;
    assert_eq!(client.clone().oneshot(0).await.unwrap(), "b");
}
