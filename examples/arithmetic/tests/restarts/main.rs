//! No request fails while servers are restarted or killed under steady load.
//!
//! Nor does one while they are left without their registry.
//!
//! Each scenario runs twice: for a few seconds at 200 requests a second, and (`--slow`) until 50
//! 000 requests have been offered at 1000 a second, to a release build. What was reached is
//! printed.

mod client;
mod demo;
mod ensemble;
mod fleet;
mod load;
#[path = "../../../../crates/zookeeper/tests/zookeeper/support/operator.rs"]
#[expect(dead_code, reason = "shared with the tests of ZooKeeper, which use all of it")]
mod operator;
mod registry;
mod settings;
mod stories;

use client::Protocol;
use registry::Registry;
use stories::{Registries, Size, Story};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real consul: cargo xtask test"]
async fn rolling_restart_on_consul_fails_no_request() {
    stories::tell(Story::RollingRestart, Registries::Consul, Protocol::Http, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real etcd: cargo xtask test"]
async fn rolling_restart_on_etcd_fails_no_request() {
    stories::tell(Story::RollingRestart, Registries::Etcd, Protocol::Http, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real consul: cargo xtask test"]
async fn server_that_is_killed_fails_no_request_with_one_retry() {
    stories::tell(Story::Kill, Registries::Consul, Protocol::Http, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real consul: cargo xtask test"]
async fn rolling_restart_beside_a_killed_consul_fails_no_request() {
    stories::tell(Story::RegistryKilled, Registries::Consul, Protocol::Http, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real etcd: cargo xtask test"]
async fn rolling_restart_beside_a_killed_etcd_fails_no_request() {
    stories::tell(Story::RegistryKilled, Registries::Etcd, Protocol::Http, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real eureka: cargo xtask test"]
async fn rolling_restart_beside_a_killed_eureka_fails_no_request() {
    stories::tell(Story::RegistryKilled, Registries::Eureka, Protocol::Http, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real zookeeper: cargo xtask test"]
async fn rolling_restart_beside_a_killed_zookeeper_fails_no_request() {
    stories::tell(Story::RegistryKilled, Registries::ZooKeeper, Protocol::Http, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real consul: cargo xtask test"]
async fn rolling_restart_over_grpc_fails_no_call() {
    stories::tell(Story::RollingRestart, Registries::Consul, Protocol::Grpc, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real consul: cargo xtask test"]
async fn grpc_server_that_is_killed_fails_no_call_with_one_retry() {
    stories::tell(Story::Kill, Registries::Consul, Protocol::Grpc, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real zookeeper: cargo xtask test"]
async fn demo_on_zookeeper_fails_no_request() {
    demo::tell(&Registry::zookeeper().await, 4);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real zookeeper: cargo xtask test"]
async fn settings_in_zookeeper_change_a_running_server() {
    settings::tell().await;
}

mod slow {
    use super::{
        client::Protocol,
        demo, ensemble,
        registry::Registry,
        stories::{self, Registries, Size, Story},
    };

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn rolling_restart_on_consul_fails_none_of_50_000() {
        stories::tell(Story::RollingRestart, Registries::Consul, Protocol::Http, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn rolling_restart_on_etcd_fails_none_of_50_000() {
        stories::tell(Story::RollingRestart, Registries::Etcd, Protocol::Http, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn killed_servers_on_consul_fail_none_of_50_000_with_one_retry() {
        stories::tell(Story::Kill, Registries::Consul, Protocol::Http, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn killed_servers_on_etcd_fail_none_of_50_000_with_one_retry() {
        stories::tell(Story::Kill, Registries::Etcd, Protocol::Http, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn consul_killed_and_restarted_meanwhile_fails_none_of_50_000() {
        stories::tell(Story::RegistryKilled, Registries::Consul, Protocol::Http, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn etcd_killed_and_restarted_meanwhile_fails_none_of_50_000() {
        stories::tell(Story::RegistryKilled, Registries::Etcd, Protocol::Http, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn rolling_restart_on_eureka_fails_none_of_50_000() {
        stories::tell(Story::RollingRestart, Registries::Eureka, Protocol::Http, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn rolling_restart_on_zookeeper_fails_none_of_50_000() {
        let registries = Registries::ZooKeeper;
        stories::tell(Story::RollingRestart, registries, Protocol::Http, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: ten seconds, after the start of a server that takes as long"]
    async fn demo_on_eureka_fails_no_request() {
        demo::tell(&Registry::eureka().await, 10);
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: an ensemble of three is killed, suspended, restarted and wiped"]
    async fn whatever_happens_to_an_ensemble_fails_no_request() {
        ensemble::tell().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 calls, at 1000 a second"]
    async fn rolling_restart_over_grpc_on_consul_fails_none_of_50_000() {
        stories::tell(Story::RollingRestart, Registries::Consul, Protocol::Grpc, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 calls, at 1000 a second"]
    async fn rolling_restart_over_grpc_on_etcd_fails_none_of_50_000() {
        stories::tell(Story::RollingRestart, Registries::Etcd, Protocol::Grpc, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 calls, at 1000 a second"]
    async fn killed_grpc_servers_fail_none_of_50_000_with_one_retry() {
        stories::tell(Story::Kill, Registries::Consul, Protocol::Grpc, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 calls, at 1000 a second"]
    async fn killed_consul_fails_none_of_50_000_grpc_calls() {
        stories::tell(Story::RegistryKilled, Registries::Consul, Protocol::Grpc, Size::Full).await;
    }
}
