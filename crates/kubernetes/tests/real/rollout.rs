//! A rolling update as the platform writes it, under traffic.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{join_all, join3};
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd_balance::{BalanceLayer, BoxError, Endpointer, Factory, RoundRobin, factory_fn};
use tower_sd_core::{Instance, Instancer, Subscription};
use tower_sd_http::HttpFactory;
use tower_sd_testkit::{
    script::{Reply, Script},
    stall::with_stall,
};

use crate::{
    scene::{RECOVERED, SOON, Scene, note, shows_now},
    support::{Condition, endpoint, slice},
};

/// A process with an address of loopback, which no slice may have.
struct Pod {
    name: String,
    listed: String,
    script: Script,
    served: Arc<Mutex<Served>>,
}

/// When it had its first and its last request.
#[derive(Clone, Copy, Default)]
struct Served {
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Pod {
    async fn start(name: String, n: usize) -> Self {
        let served = Arc::new(Mutex::new(Served::default()));
        let log = Arc::clone(&served);
        let script = Script::answering(move |_| {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            *log = Served { first: log.first.or(Some(now)), last: Some(now) };
            Reply::new(200)
        });
        let script = script.await.expect("loopback");
        Self { name, listed: format!("10.0.0.{n}"), script, served }
    }

    /// Only one that leaves loses any.
    fn keeps_its_connections(&self) {
        let (n_accepted, n_open) = (self.script.n_accepted(), self.script.n_connections());
        assert_eq!(n_accepted, n_open, "connections of {} were cut", self.name);
    }

    fn served(&self) -> Served {
        *self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Endpoints of pods by name, and how often each was made.
fn factory(pods: &[&Pod], made: &Arc<Mutex<Vec<String>>>) -> impl Factory<Service = Endpoint> {
    let address = |pod: &&Pod| (pod.name.clone(), pod.script.address());
    let addresses: HashMap<_, _> = pods.iter().map(address).collect();
    let made = Arc::clone(made);
    factory_fn(move |listed: Instance| {
        let name = listed.id().to_string();
        let address = addresses[&name];
        made.lock().unwrap_or_else(PoisonError::into_inner).push(name);
        let instance = Instance::new(address.ip().to_string(), address.port());
        // None closes for want of requests.
        async move { HttpFactory::new().idle_timeout(RECOVERED).make(instance).await }
    })
}

type Endpoint = <HttpFactory<Full<Bytes>> as Factory>::Service;

/// What the slice has.
struct Rollout<'a> {
    scene: &'a Scene,
    listed: Vec<(&'a Pod, Condition)>,
}

impl<'a> Rollout<'a> {
    async fn set(&mut self, pod: &'a Pod, condition: impl Into<Option<Condition>>) {
        self.listed.retain(|(other, _)| other.name != pod.name);
        self.listed.extend(condition.into().map(|condition| (pod, condition)));
        self.write().await;
    }

    async fn write(&self) {
        let one =
            |(pod, condition): &(&Pod, Condition)| endpoint(&pod.name, &pod.listed, *condition);
        let endpoints: Vec<_> = self.listed.iter().map(one).collect();
        self.scene.apply(&slice("orders", "orders-1", 80, &endpoints)).await;
    }

    /// One pod after the other: the new one is ready, then the old one terminates, and is gone
    /// [`LAG`] pods later. Returns when each new one was ready.
    async fn replace(&mut self, old: &'a [Pod], new: &'a [Pod]) -> Vec<Instant> {
        let mut ready = Vec::new();
        for n in 0..old.len() + LAG {
            if let (Some(old), Some(new)) = (old.get(n), new.get(n)) {
                self.set(new, Condition::NotReady).await;
                sleep(STEP).await;
                self.set(new, Condition::Ready).await;
                ready.push(Instant::now());
                sleep(STEP).await;
                old.keeps_its_connections();
                self.set(old, Condition::Terminating).await;
            }
            sleep(STEP).await;
            if let Some(gone) = n.checked_sub(LAG) {
                self.set(&old[gone], None).await;
                old[gone].script.close().await;
            }
        }
        ready
    }
}

/// When each instance was first seen not to accept requests any more.
async fn watch(mut subscription: Subscription, over: &AtomicBool) -> HashMap<String, Instant> {
    let (mut accepted, mut left) = (HashMap::new(), HashMap::new());
    while !over.load(Relaxed) {
        let accepting = |it: &&Instance| it.status().accepts_requests();
        let now: Vec<String> = {
            let snapshot = subscription.snapshot();
            snapshot.instances().iter().filter(accepting).map(|it| it.id().to_string()).collect()
        };
        for name in accepted.keys() {
            if !now.contains(name) {
                left.entry(String::clone(name)).or_insert_with(Instant::now);
            }
        }
        accepted.extend(now.into_iter().map(|name| (name, ())));
        let _changed = timeout(STEP, subscription.changed()).await;
    }
    left
}

/// Some 1 000 requests a second, none of which may fail; returns how many.
async fn traffic<S, B>(service: S, over: &AtomicBool) -> usize
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<B>, Error = BoxError> + Clone,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    let n_requests = AtomicUsize::new(0);
    let worker = async |mut service: S| {
        let mut pace = interval(Duration::from_millis(8));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !over.load(Relaxed) {
            pace.tick().await;
            let request = Request::get("http://orders/").body(Full::default());
            let response = service.ready().await.expect("there are endpoints");
            let response = response.call(request.expect("well formed")).await;
            let response = response.expect("no request fails");
            response.into_body().collect().await.map_err(Into::into).expect("a whole body");
            n_requests.fetch_add(1, Relaxed);
        }
    };
    join_all((0..8).map(|_| worker(service.clone()))).await;
    n_requests.into_inner()
}

async fn pods(kind: &str, first: usize) -> Vec<Pod> {
    join_all((0..10).map(|n| Pod::start(format!("{kind}-{n}"), first + n))).await
}

#[tokio::test]
#[ignore = "needs kubernetes: cargo xtask test kubernetes"]
async fn rolling_update_fails_no_request() {
    let scene = Scene::new().await;
    let (old, new) = (pods("old", 10).await, pods("new", 20).await);
    let listed = old.iter().map(|pod| (pod, Condition::Ready)).collect();
    let mut rollout = Rollout { scene: &scene, listed };
    rollout.write().await;
    let instancer = scene.client.instancer("orders");
    let mut subscription = instancer.subscribe();
    let names: Vec<&str> = old.iter().map(|pod| pod.name.as_str()).collect();
    shows_now(&mut subscription, &names).await;

    let made = Arc::<Mutex<Vec<String>>>::default();
    let all: Vec<&Pod> = old.iter().chain(&new).collect();
    let endpointer = Endpointer::new(&instancer, factory(&all, &made));
    endpointer.ready(SOON).await.expect("there are endpoints");
    let balance = BalanceLayer::new(RoundRobin::new());
    let service = ServiceBuilder::new().layer(balance).service(endpointer);
    let (over, start) = (AtomicBool::new(false), Instant::now());
    let replaced = async {
        let ready = rollout.replace(&old, &new).await;
        new.iter().for_each(Pod::keeps_its_connections);
        over.store(true, Relaxed);
        ready
    };
    let followed = join3(replaced, watch(subscription, &over), traffic(service, &over));
    let ((ready, left, n_requests), stall) = with_stall(followed).await;

    let took = start.elapsed();
    let late = old.iter().map(|pod| {
        let (seen, last) = (left[&pod.name], pod.served().last.expect("it was used"));
        last.saturating_duration_since(seen)
    });
    let used = new.iter().zip(ready).map(|(pod, ready)| {
        let first = pod.served().first.expect("it was used");
        first.saturating_duration_since(ready)
    });
    let (late, used) = (late.max().expect("ten"), used.max().expect("ten"));
    note(&format!(
        "{n_requests} requests in {took:?}; the last to a pod {late:?} after it was seen to leave, \
         the first {used:?} after it was ready; stalls of {stall:?}"
    ));
    // Ten for each pod, however busy the machine is.
    assert!(n_requests > 200, "{n_requests}");
    let is_prompt = late < LATE + stall && used < BUSY + stall;
    assert!(is_prompt, "{late:?}, {used:?}, stalled for {stall:?}");
    let mut made = made.lock().expect("no panic").clone();
    made.sort();
    let mut once: Vec<String> = all.iter().map(|pod| pod.name.clone()).collect();
    once.sort();
    assert_eq!(made, once, "no endpoint was made twice");
}

const STEP: Duration = Duration::from_millis(80);
/// With what the machine itself was late.
const LATE: Duration = Duration::from_millis(100);
/// Longer than [`BUSY`], together.
const LAG: usize = 7;
/// What takes 100 ms takes longer on a busy machine.
const BUSY: Duration = Duration::from_secs(1);
