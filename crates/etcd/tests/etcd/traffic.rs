//! Requests go on while the registry does not.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{join, join_all, try_join_all};
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd_balance::{BalanceLayer, BoxError, Endpointer, RoundRobin};
use tower_sd_core::{
    Follower, Instance, Instancer, Registration, RegistrationHandle, Snapshot, Subscription,
};
use tower_sd_etcd::{Etcd, EtcdConfig};
use tower_sd_http::HttpFactory;
use tower_sd_testkit::{
    proxy::{Fault, Proxy},
    script::{Reply, Script},
    wait::shows_that,
};

use crate::support::{
    TTL, custom::Cluster, holds, note, oldest_and_newest, on_each, on_every_etcd,
};

const SOON: Duration = Duration::from_secs(10);
/// After an outage of five seconds, which a busy machine makes ten, the pause before the next
/// attempt is below sixteen.
const SETTLED: Duration = Duration::from_secs(30);

/// Servers that live all the time, whether they are registered or not, and who follows those that
/// are.
struct Scene {
    registrar: Etcd,
    /// The client of the servers' registrations, and one that checks afterwards.
    registering: Etcd,
    servers: Vec<Script>,
    handles: Vec<RegistrationHandle>,
    instancer: Follower,
    subscription: Subscription,
}

impl Scene {
    /// Three servers.
    async fn new(registering: &Etcd, following: &Etcd) -> Self {
        let instancer = following.instancer("traffic");
        let mut scene = Self {
            registrar: registering.clone(),
            registering: registering.clone(),
            servers: Vec::new(),
            handles: Vec::new(),
            subscription: instancer.subscribe(),
            instancer,
        };
        for _ in 0..3 {
            scene.serve().await;
        }
        scene.settles(3).await;
        scene
    }

    /// Starts a server and registers it.
    async fn serve(&mut self) {
        let server = Script::answering(|_| Reply::new(200).body("ok")).await.expect("loopback");
        let address = server.address();
        let instance = Instance::new(address.ip().to_string(), address.port());
        let registered = self.registrar.register(Registration::new("traffic", instance)).await;
        self.handles.push(registered.expect("registers"));
        self.servers.push(server);
    }

    /// Waits until `n` are known, none is held, and a new list agrees: what was lost meanwhile (a
    /// renewal that came too late) has been put again.
    async fn settles(&mut self, n: usize) {
        let all = |it: &Snapshot| {
            it.freshness().is_fresh() && it.instances().len() == n && it.held().is_empty()
        };
        holds("a new list agrees", SETTLED, async || {
            let known = shows_that(&mut self.subscription, "all, fresh", SETTLED, all).await;
            let other = self.registering.instancer("traffic");
            let listed = other.subscribe().ready(SOON).await.expect("the cluster is well");
            known.instances() == listed.instances()
        })
        .await;
    }

    /// Sends requests for as long as `trouble` lasts, none of them twice: not one may fail.
    async fn loses_no_request(&mut self, trouble: impl AsyncFnOnce(&mut Self)) {
        let endpointer = Endpointer::new(&self.instancer, HttpFactory::new());
        endpointer.ready(SOON).await.expect("there are endpoints");
        let balance = BalanceLayer::new(RoundRobin::new());
        let mut service = ServiceBuilder::new().layer(balance).service(endpointer);
        let (over, n_requests) = (AtomicBool::new(false), AtomicUsize::new(0));
        let start = Instant::now();
        let traffic = async {
            while !over.load(Relaxed) {
                if let Err(error) = request(&mut service).await {
                    panic!("request {n_requests:?} after {:?}: {error:?}", start.elapsed());
                }
                n_requests.fetch_add(1, Relaxed);
                sleep(Duration::from_millis(2)).await;
            }
        };
        let trouble = async {
            trouble(self).await;
            over.store(true, Relaxed);
        };
        join(traffic, trouble).await;
        let (n_requests, took) = (n_requests.load(Relaxed), start.elapsed());
        note(&format!("{n_requests} requests in {took:?}, none failed"));
        // Two milliseconds and a request: some 300 a second, a tenth of that on a machine that is
        // busy.
        assert!(n_requests > 100, "{n_requests}");
    }
}

async fn request(
    service: &mut impl Service<
        Request<Full<Bytes>>,
        Response = http::Response<impl http_body::Body<Data = Bytes, Error: Into<BoxError>>>,
        Error = BoxError,
    >,
) -> Result<(), BoxError> {
    let request = Request::get("http://traffic/").body(Full::default())?;
    let response = service.ready().await?.call(request).await?;
    response.into_body().collect().await.map_err(Into::into)?;
    Ok(())
}

/// The leader is killed and comes back, its members are restarted in turn, and then all of them
/// have lost everything. The follower reads that before any instance has registered again.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn cluster_without_leader_members_or_data_fails_no_request() {
    on_each(oldest_and_newest(), async |binary| {
        let cluster = Cluster::start(&binary, 3).await;
        let proxies = cluster.nodes.iter().map(|node| Proxy::start(node.client));
        let proxies = try_join_all(proxies).await.expect("proxies");
        let client = |endpoints: Vec<String>| {
            Etcd::new(EtcdConfig::new(endpoints).ttl(TTL)).expect("good settings")
        };
        let registering = client(proxies.iter().map(|it| it.address().to_string()).collect());
        let mut scene = Scene::new(&registering, &client(cluster.endpoints())).await;
        let trouble = async |scene: &mut Scene| {
            let leader = cluster.leader().await;
            cluster.nodes[leader].server.kill();
            sleep(TTL).await;
            cluster.nodes[leader].server.restart().await.expect("it starts again");
            scene.settles(3).await;
            for (n, node) in cluster.nodes.iter().enumerate() {
                node.server.restart().await.expect("it starts again");
                scene.serve().await;
                scene.settles(4 + n).await;
            }
            join_all(proxies.iter().map(|proxy| proxy.set(Fault::Cut))).await;
            cluster.nodes.iter().for_each(|node| node.server.kill());
            sleep(TTL).await;
            let restarts = cluster.nodes.iter().map(|node| node.server.restart_empty());
            assert!(join_all(restarts).await.iter().all(Result::is_ok));
            let nobody = |it: &Snapshot| it.freshness().is_fresh() && it.held().len() == 6;
            shows_that(&mut scene.subscription, "all held", SETTLED, nobody).await;
            join_all(proxies.iter().map(|proxy| proxy.set(Fault::None))).await;
            scene.settles(6).await;
        };
        scene.loses_no_request(trouble).await;
    })
    .await;
}

/// The follower is cut off while servers come and go and their history is compacted.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn compaction_while_cut_off_fails_no_request() {
    on_every_etcd(async |etcd| {
        let proxy = Proxy::start(etcd.server.address()).await.expect("a proxy");
        let mut config = etcd.config();
        config.endpoints = vec![proxy.address().to_string()];
        let followed = Etcd::new(config).expect("good settings");
        let mut scene = Scene::new(&etcd.client(), &followed).await;
        let trouble = async |scene: &mut Scene| {
            proxy.set(Fault::Cut).await;
            scene.serve().await;
            scene.serve().await;
            let gone = scene.handles.remove(0);
            gone.deregister().await.expect("deregisters");
            let mut operator = etcd.operator().await;
            let put = operator.put("something else", "", None).await.expect("answers");
            let now = put.header().expect("has a header").revision();
            operator.compact(now, None).await.expect("compacts");
            sleep(TTL).await;
            proxy.set(Fault::None).await;
            scene.settles(4).await;
            scene.serve().await;
            scene.settles(5).await;
        };
        scene.loses_no_request(trouble).await;
    })
    .await;
}
