//! Servers are restarted, killed and left without their registry under steady load, and no request fails.
//!
//! Each story is told twice: for a few seconds at 200 requests a second, and (`--slow`) until 50 000 requests have been
//! offered at 1000 a second, to a release build. What was reached is printed.

mod fleet;
mod load;
mod registry;
mod stories;

use stories::{Registries, Size, Story};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real consul: cargo xtask test"]
async fn rolling_restart_on_consul_fails_no_request() {
    stories::tell(Story::RollingRestart, Registries::Consul, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real etcd: cargo xtask test"]
async fn rolling_restart_on_etcd_fails_no_request() {
    stories::tell(Story::RollingRestart, Registries::Etcd, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real consul: cargo xtask test"]
async fn server_that_is_killed_fails_no_request_with_one_retry() {
    stories::tell(Story::Kill, Registries::Consul, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real consul: cargo xtask test"]
async fn rolling_restart_while_consul_is_killed_and_restarted_fails_no_request() {
    stories::tell(Story::RegistryKilled, Registries::Consul, Size::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real etcd: cargo xtask test"]
async fn rolling_restart_while_etcd_is_killed_and_restarted_fails_no_request() {
    stories::tell(Story::RegistryKilled, Registries::Etcd, Size::Short).await;
}

mod slow {
    use super::stories::{self, Registries, Size, Story};

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn rolling_restart_on_consul_fails_none_of_50_000() {
        stories::tell(Story::RollingRestart, Registries::Consul, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn rolling_restart_on_etcd_fails_none_of_50_000() {
        stories::tell(Story::RollingRestart, Registries::Etcd, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn servers_that_are_killed_on_consul_fail_none_of_50_000_with_one_retry() {
        stories::tell(Story::Kill, Registries::Consul, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn servers_that_are_killed_on_etcd_fail_none_of_50_000_with_one_retry() {
        stories::tell(Story::Kill, Registries::Etcd, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn consul_killed_and_restarted_meanwhile_fails_none_of_50_000() {
        stories::tell(Story::RegistryKilled, Registries::Consul, Size::Full).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: 50 000 requests, at 1000 a second"]
    async fn etcd_killed_and_restarted_meanwhile_fails_none_of_50_000() {
        stories::tell(Story::RegistryKilled, Registries::Etcd, Size::Full).await;
    }
}
