//! What many users of one client cost.

#[path = "etcd/support/mod.rs"]
mod support;

use std::time::Duration;

use futures_util::future::join_all;
use support::{instance, note, on_every_etcd_in_turn};
use tokio::runtime::Handle;
use tower_sd_core::{Instancer, Registration};
use tower_sd_etcd::Etcd;
use tower_sd_testkit::{
    proxy::Proxy,
    usage::resident_kib,
    wait::{shows, shows_that},
};

/// 100 registrations and 1 000 followed services: at most 4 TCP connections to an endpoint.
///
/// The memory is the first server's figure; the others' are small, because they are given what the
/// first has left.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn registrations_and_services_share_few_connections() {
    on_every_etcd_in_turn(async |etcd| {
        let proxy = Proxy::start(etcd.server.address()).await.expect("a proxy");
        let mut config = etcd.config().ttl(Duration::from_secs(10));
        config.endpoints = vec![proxy.address().to_string()];
        let client = Etcd::new(config).expect("good settings");
        let registrar = client.clone();
        let register = |n: u16| {
            let one = Registration::new(format!("many-{n}"), instance("a", 1000 + n));
            registrar.register(one)
        };
        let handles = join_all((0..100).map(register)).await;
        assert!(handles.iter().all(Result::is_ok));
        let before = resident_kib().expect("Linux");
        let follow = |n: u16| client.instancer(format!("many-{n}"));
        let instancers: Vec<_> = (0..1000).map(follow).collect();
        for (n, instancer) in instancers.iter().enumerate() {
            let mut subscription = instancer.subscribe();
            subscription.ready(Duration::from_secs(30)).await.expect("the server answers");
            let n_wanted = usize::from(n < 100);
            let wanted = |it: &tower_sd_core::Snapshot| it.instances().len() == n_wanted;
            shows_that(&mut subscription, "itself", Duration::from_secs(5), wanted).await;
        }
        let kib = resident_kib().expect("Linux").saturating_sub(before);
        let n_open = proxy.n_open();
        note(&format!("{n_open} connections; {kib} KiB for 1000 followed services"));
        assert!(proxy.n_accepted() <= 4, "{} connections", proxy.n_accepted());
        assert!(kib < 32_000, "{kib} KiB");
        // One of them still sees what happens.
        let mut last = instancers[999].subscribe();
        let late = Registration::new("many-999", instance("late", 1));
        let _late = registrar.register(late).await.expect("registers");
        shows(&mut last, &["late"], Duration::from_secs(5)).await;
    })
    .await;
}

/// Nothing is left when everything made from a client has gone: no task, no connection.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn last_user_closes_the_connection() {
    on_every_etcd_in_turn(async |etcd| {
        let proxy = Proxy::start(etcd.server.address()).await.expect("a proxy");
        let n_tasks = Handle::current().metrics().num_alive_tasks();
        let mut config = etcd.config();
        config.endpoints = vec![proxy.address().to_string()];
        let client = Etcd::new(config).expect("good settings");
        let instancer = client.instancer("users");
        drop(client);
        let mut subscription = instancer.subscribe();
        subscription.ready(Duration::from_secs(5)).await.expect("the server answers");
        assert_eq!(proxy.n_open(), 1);
        instancer.close().await;
        drop((instancer, subscription));
        support::holds("no connection is left", Duration::from_secs(1), async || {
            proxy.n_open() == 0 && Handle::current().metrics().num_alive_tasks() <= n_tasks
        })
        .await;
    })
    .await;
}
