//! Requests go on while the registry does not.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{join, join_all};
use http::Request;
use http_body_util::{BodyExt, Full};
use support::{TTL, binaries, custom::Cluster, note, sees};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd::{BalanceLayer, BoxError, Endpointer, RoundRobin};
use tower_sd_core::{Freshness, Instance, Instancer, Registrar, Registration, Snapshot};
use tower_sd_etcd::{EtcdClient, EtcdConfig, EtcdInstancer, EtcdRegistrar};
use tower_sd_http::HttpFactory;
use tower_sd_testkit::script::{Reply, Script};

const SOON: Duration = Duration::from_secs(10);

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

/// Leader killed, its member back, then everything wiped (T89): without a single retry no request fails, because the
/// instances live all the time.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn no_request_fails_while_the_cluster_loses_its_leader_and_then_its_memory() {
    for binary in binaries() {
        note(&format!("using etcd v{} three times", binary.version));
        let cluster = Cluster::start(&binary, 3).await;
        let config = EtcdConfig::new(cluster.endpoints()).ttl(TTL);
        let client = EtcdClient::new(config).expect("good settings");
        let registrar = EtcdRegistrar::new(&client);
        let script = || Script::answering(|_| Reply::new(200).body("ok"));
        let servers: Vec<_> = join_all((0..3).map(|_| script())).await;
        let mut handles = Vec::new();
        for server in &servers {
            let address = server.as_ref().expect("loopback").address();
            let instance = Instance::new(address.ip().to_string(), address.port());
            let one = Registration::new("traffic", instance);
            handles.push(registrar.register(one).await.expect("registers"));
        }
        let instancer = EtcdInstancer::new(&client, "traffic");
        let mut subscription = instancer.subscribe();
        let all = |it: &Snapshot| {
            let fresh = matches!(it.freshness(), Freshness::Fresh);
            fresh && it.instances().len() == 3 && it.held().is_empty()
        };
        sees(&mut subscription, SOON, all).await;
        let endpointer = Endpointer::new(&instancer, HttpFactory::new());
        endpointer.ready(SOON).await.expect("there are endpoints");
        let mut service =
            ServiceBuilder::new().layer(BalanceLayer::new(RoundRobin::new())).service(endpointer);

        let (over, n_requests) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
        let traffic = async {
            while !over.load(Relaxed) {
                if let Err(error) = request(&mut service).await {
                    panic!("request {n_requests:?}: {error:?}");
                }
                n_requests.fetch_add(1, Relaxed);
                sleep(Duration::from_millis(2)).await;
            }
        };
        let trouble = async {
            let leader = cluster.leader().await;
            cluster.nodes[leader].server.kill();
            sleep(2 * TTL).await;
            cluster.nodes[leader].server.restart().await.expect("it starts again");
            sees(&mut subscription, SOON, all).await;
            cluster.nodes.iter().for_each(|node| node.server.kill());
            sleep(2 * TTL).await;
            let restarts = cluster.nodes.iter().map(|node| node.server.restart_empty());
            assert!(join_all(restarts).await.iter().all(Result::is_ok));
            sees(&mut subscription, SOON, all).await;
            sleep(Duration::from_secs(1)).await;
            over.store(true, Relaxed);
        };
        let start = Instant::now();
        join(traffic, trouble).await;
        let (n_requests, took) = (n_requests.load(Relaxed), start.elapsed());
        note(&format!("{n_requests} requests in {took:?}, none failed"));
        assert!(n_requests > 100, "{n_requests}");
    }
}
