#[path = "../../../zookeeper/tests/zookeeper/support/operator.rs"]
#[expect(dead_code, reason = "shared with the tests of ZooKeeper, which use all of it")]
mod operator;

use std::{ops::Deref, time::Duration};

use etcd_client::Client;
use serde::Deserialize;
use tokio::time::timeout;
use tower_sd_config::{ConfigSnapshot, WatchOptions, WatchedConfig};
use tower_sd_consul::{Consul, ConsulConfig};
use tower_sd_core::FollowConfig;
use tower_sd_etcd::{Etcd, EtcdConfig};
use tower_sd_testkit::{
    real::{self, Server},
    servers::{ServerBinary, configured},
};
use tower_sd_zookeeper::{ZooKeeper, ZooKeeperConfig};

use self::operator::{CreateMode, Operator};

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub(crate) struct Settings {
    pub(crate) limit: u32,
    #[serde(default)]
    pub(crate) text: String,
}

pub(crate) fn limited(limit: u32) -> Settings {
    Settings { limit, text: String::new() }
}

/// A real registry, and a client of it.
pub(crate) enum Registry {
    Consul(real::Consul, Consul),
    Etcd(real::Etcd, Etcd),
    ZooKeeper(real::ZooKeeper, ZooKeeper),
}

impl Registry {
    /// Stop, kill, restart.
    pub(crate) fn server(&self) -> &Server {
        match self {
            Self::Consul(server, _) => server.deref(),
            Self::Etcd(server, _) => server.deref(),
            Self::ZooKeeper(server, _) => server.deref(),
        }
    }

    pub(crate) fn follow(
        &self,
        key: &str,
        options: WatchOptions<Settings>,
    ) -> WatchedConfig<Settings> {
        match self {
            Self::Consul(_, client) => WatchedConfig::new(client.key_value(key), options),
            Self::Etcd(_, client) => WatchedConfig::new(client.key_value(key), options),
            Self::ZooKeeper(_, client) => WatchedConfig::new(client.key_value(key), options),
        }
    }

    pub(crate) fn follow_prefix(
        &self,
        prefix: &str,
        options: WatchOptions<Settings>,
    ) -> WatchedConfig<Settings> {
        self.follow(&format!("{prefix}/"), options)
    }

    /// `Err`: refused.
    pub(crate) async fn try_put(&self, key: &str, value: &str) -> Result<(), String> {
        match self {
            Self::Consul(_, client) => {
                let put = client.kv().put(key, value).await;
                put.map_err(|error| error.to_string())
            }
            Self::Etcd(server, _) => {
                let put = operator(server).await.put(key, value, None).await;
                put.map(drop).map_err(|error| error.to_string())
            }
            Self::ZooKeeper(server, _) => {
                let mut operator = Operator::connect(server.address()).await;
                let path = format!("/{key}");
                match operator.get(&path).await {
                    Some(_) => operator.set(&path, value.as_bytes()).await,
                    None => {
                        operator.create(&path, value.as_bytes(), CreateMode::Persistent).await;
                    }
                }
                Ok(())
            }
        }
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        self.try_put(key, value).await.expect("the registry takes it");
    }

    pub(crate) async fn delete(&self, key: &str) {
        match self {
            Self::Consul(_, client) => client.kv().delete(key).await.expect("deleted"),
            Self::Etcd(server, _) => {
                operator(server).await.delete(key, None).await.expect("deleted");
            }
            Self::ZooKeeper(server, _) => {
                Operator::connect(server.address()).await.delete(&format!("/{key}")).await;
            }
        }
    }
}

pub(crate) async fn operator(server: &real::Etcd) -> Client {
    Client::connect([server.url()], None).await.expect("the server runs")
}

/// Runs a test on every version of every registry, one after the other.
pub(crate) async fn on_every_registry(test: impl AsyncFn(&Registry) + Send + Sync) {
    on_every_consul(&test).await;
    on_every_etcd(&test).await;
    on_zookeeper(&test).await;
}

/// As [`on_every_registry`], of those that keep their data when restarted.
pub(crate) async fn on_every_lasting_registry(test: impl AsyncFn(&Registry) + Send + Sync) {
    on_consuls(real::ConsulConfig::server, &test).await;
    on_every_etcd(&test).await;
    on_zookeeper(&test).await;
}

pub(crate) async fn on_every_consul(test: impl AsyncFn(&Registry) + Send + Sync) {
    on_consuls(real::ConsulConfig::dev, test).await;
}

async fn on_consuls(
    config: fn(ServerBinary) -> real::ConsulConfig,
    test: impl AsyncFn(&Registry) + Send + Sync,
) {
    for binary in binaries("consul") {
        let server = real::Consul::start(config(binary)).await.expect("consul starts");
        let client = Consul::new(ConsulConfig::new(server.url())).expect("an address");
        Box::pin(test(&Registry::Consul(server, client))).await;
    }
}

pub(crate) async fn on_every_etcd(test: impl AsyncFn(&Registry) + Send + Sync) {
    for binary in binaries("etcd") {
        let server = real::Etcd::start(real::EtcdConfig::new(binary)).await.expect("etcd starts");
        let client = Etcd::new(EtcdConfig::new([server.url()])).expect("an address");
        Box::pin(test(&Registry::Etcd(server, client))).await;
    }
}

/// On the newest one: what versions of it differ in is the affair of its own tests.
pub(crate) async fn on_zookeeper(test: impl AsyncFn(&Registry) + Send + Sync) {
    let binary = binaries("zookeeper").last().expect("there is one");
    let server = real::ZooKeeper::start(real::ZooKeeperConfig::new(binary)).await;
    let server = server.expect("zookeeper starts");
    let config = ZooKeeperConfig::new([server.address().to_string()]);
    let client = ZooKeeper::new(config).expect("an address");
    Box::pin(test(&Registry::ZooKeeper(server, client))).await;
}

#[expect(clippy::print_stdout, reason = "which server a failed test ran on")]
fn binaries(server: &'static str) -> impl Iterator<Item = ServerBinary> {
    let binaries = configured(server).unwrap_or_else(|missing| panic!("{missing}"));
    binaries.into_iter().inspect(move |binary| println!("using {server} v{}", binary.version))
}

/// JSON, with short pauses: a test does not wait for a minute.
pub(crate) fn json() -> WatchOptions<Settings> {
    let mut follow = FollowConfig::default();
    follow.max_backoff = Duration::from_secs(1);
    follow.denied_interval = Duration::from_millis(100);
    WatchOptions::json().follow(follow)
}

/// Waits until a configuration is as wanted.
pub(crate) async fn sees(
    config: &mut WatchedConfig<Settings>,
    what: &str,
    wanted: impl Fn(&ConfigSnapshot<Settings>) -> bool + Sync,
) -> ConfigSnapshot<Settings> {
    let wait = async {
        while !wanted(&config.latest()) {
            config.changed().await.expect("the loop lives");
        }
        config.latest()
    };
    match timeout(BOUND, wait).await {
        Ok(latest) => latest,
        Err(_elapsed) => panic!("not seen within {BOUND:?}: {what}; last: {:?}", config.latest()),
    }
}

pub(crate) fn has(limit: u32) -> impl Fn(&ConfigSnapshot<Settings>) -> bool + Sync {
    move |latest| latest.value().is_some_and(|settings| settings.limit == limit)
}

/// Generous, for a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
