//! Behind etcd's own gRPC proxy.
//!
//! The proxy numbers watches itself and answers no progress requests.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use futures_util::FutureExt;
use tokio::{net::TcpStream, time::sleep};
use tower_sd_core::{Instancer, Registration};
use tower_sd_etcd::{Etcd, EtcdConfig};
use tower_sd_testkit::{
    real::{self, EtcdConfig as ServerConfig, Server},
    servers::ServerBinary,
    wait::{fresh_with, shows, shows_that},
};

use crate::support::{TTL, binaries, custom::place, instance, is_stale, on_each};

const SOON: Duration = Duration::from_secs(10);
/// Far less than the time after which silence is noticed.
const BY_WATCH: Duration = Duration::from_secs(2);

async fn proxy(binary: &ServerBinary, etcd: SocketAddr) -> (Server, SocketAddr) {
    let (address, _) = place();
    let path = binary.path.clone();
    let command = move |data: &Path| {
        let mut command = Command::new(&path);
        command
            .args(["grpc-proxy", "start"])
            .args(["--endpoints", &etcd.to_string(), "--listen-addr", &address.to_string()])
            .args(["--advertise-client-url", &address.to_string()])
            .arg("--data-dir")
            .arg(data.join("proxy"));
        command
    };
    let ready = move || async move { TcpStream::connect(address).await.is_ok() }.boxed();
    (Server::start(command, ready).await.expect("the proxy starts"), address)
}

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn services_behind_the_grpc_proxy_are_watched() {
    on_each(binaries(), async |binary| {
        let etcd = real::Etcd::start(ServerConfig::new(binary.clone())).await.expect("etcd starts");
        let (proxy, address) = proxy(&binary, etcd.address()).await;
        let config = EtcdConfig::new([address.to_string()]).ttl(TTL);
        let client = Etcd::new(config).expect("good settings");
        let direct = Etcd::new(EtcdConfig::new([etcd.url()]).ttl(TTL));
        let direct = direct.expect("good settings");
        let behind = client.clone();
        let services = ["a", "b", "c"];
        let instancers = services.map(|service| client.instancer(service));
        let mut subscriptions = instancers.each_ref().map(Instancer::subscribe);
        for subscription in &mut subscriptions {
            shows_that(subscription, "none, fresh", SOON, fresh_with(0)).await;
        }
        // All are on the stream before the first event.
        sleep(Duration::from_secs(3)).await;
        let mut handles = Vec::new();
        for (service, subscription) in services.iter().zip(&mut subscriptions) {
            let one = Registration::new(*service, instance("direct", 1));
            handles.push(direct.register(one).await.expect("registers"));
            shows(subscription, &["direct"], BY_WATCH).await;
            let two = Registration::new(*service, instance("behind", 2));
            handles.push(behind.register(two).await.expect("registers"));
            shows(subscription, &["behind", "direct"], BY_WATCH).await;
        }
        // Longer than the time after which silence is noticed.
        sleep(Duration::from_secs(8)).await;
        let gone = handles.remove(0);
        gone.deregister().await.expect("deregisters");
        shows(&mut subscriptions[0], &["behind"], BY_WATCH).await;
        for subscription in &subscriptions {
            let stats = subscription.stats();
            assert_eq!((stats.resyncs, stats.errors), (0, 0), "{stats:?}");
        }
        let output = proxy.output();
        assert!(!output.contains("not supported request type"), "{output}");

        etcd.kill();
        shows_that(&mut subscriptions[1], "stale", Duration::from_secs(30), is_stale).await;
        etcd.restart().await.expect("it starts again");
        shows_that(&mut subscriptions[1], "two, fresh", Duration::from_secs(30), fresh_with(2))
            .await;
    })
    .await;
}
