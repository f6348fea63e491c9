//! A server that stalls, and hundreds of clients which wait for it.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use tower_sd_core::{Follower, Instancer, Registration, Subscription};
use tower_sd_testkit::wire::request;

use crate::support::{EtcdFixture, instance, is_stale, note, on_every_etcd};
use tower_sd_testkit::wait::{fresh_with, shows_that};

const SOON: Duration = Duration::from_secs(30);
const N_FOLLOWERS: usize = 200;
const STALL: Duration = Duration::from_secs(8);

/// Calls and streams that the server has started, by method.
async fn n_started(etcd: &EtcdFixture) -> Vec<(String, f64)> {
    let answer = request(etcd.server.address(), "GET", "/metrics", "").await;
    let body = answer.expect("the server answers").body;
    let lines = body.lines().filter_map(|it| it.strip_prefix("grpc_server_started_total{"));
    let parsed = lines.filter_map(|line| {
        let (labels, number) = line.rsplit_once(' ')?;
        let (_, method) = labels.split_once("grpc_method=\"")?;
        let (method, _) = method.split_once('"')?;
        Some((method.to_owned(), number.parse().ok()?))
    });
    parsed.collect()
}

fn difference(before: &[(String, f64)], after: &[(String, f64)], method: &str) -> f64 {
    let of = |list: &[(String, f64)]| {
        let found = list.iter().find(|(name, _)| name == method);
        found.map_or(0.0, |(_, number)| *number)
    };
    of(after) - of(before)
}

/// Each follower has a client of its own, as processes have. The stall is answered by waiting: no
/// lists, no log-ins, and no empty set.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn stall_of_the_only_member_is_waited_for() {
    on_every_etcd(async |etcd| {
        let registrar = etcd.client();
        // Its lease has to outlive the stall.
        let config = etcd.config().ttl(Duration::from_secs(60));
        let long = tower_sd_etcd::Etcd::new(config).expect("good settings");
        let one = Registration::new("stalled", instance("a", 8080));
        let _handle = long.clone().register(one).await.expect("registers");
        let followers: Vec<(Follower, Subscription)> = (0..N_FOLLOWERS)
            .map(|_| {
                let instancer = etcd.client().instancer("stalled");
                let subscription = instancer.subscribe();
                (instancer, subscription)
            })
            .collect();
        let mut followers = followers;
        join_all(
            followers.iter_mut().map(|(_, subscription)| {
                shows_that(subscription, "one, fresh", SOON, fresh_with(1))
            }),
        )
        .await;
        sleep(Duration::from_secs(3)).await;
        let before = n_started(etcd).await;
        etcd.server.suspend().expect("it runs");
        sleep(STALL).await;
        let n_stale = followers.iter().filter(|(_, it)| is_stale(&it.snapshot())).count();
        etcd.server.resume().expect("it runs");
        let recovered = followers.iter_mut().map(|(_, subscription)| {
            shows_that(subscription, "one, fresh", SOON, |it| {
                assert_eq!(it.instances().len(), 1, "an empty set was accepted");
                fresh_with(1)(it)
            })
        });
        join_all(recovered).await;
        sleep(Duration::from_secs(3)).await;
        let after = n_started(etcd).await;
        let methods = ["Range", "Watch", "Authenticate", "LeaseGrant", "Txn"];
        let counted = methods.map(|method| (method, difference(&before, &after, method)));
        note(&format!("{n_stale} of {N_FOLLOWERS} were stale; requests: {counted:?}"));
        let n_requests: f64 = counted.iter().map(|(_, number)| number).sum();
        assert!(n_requests <= 2.0 * 200.0, "{counted:?}");
        // The registration may read its own key.
        assert!(counted[0].1 <= 20.0, "{counted:?}");
        for (_, subscription) in &followers {
            assert_eq!(subscription.stats().resyncs, 0);
        }
        drop(registrar);
    })
    .await;
}

/// A call that the loop gives up, because its own bound is shorter, leaves the member too.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn member_that_hangs_is_left_by_calls_that_are_given_up() {
    on_every_etcd(async |etcd| {
        // Its connections are in the backlog, and nothing answers.
        let hangs = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let hanging = hangs.local_addr().expect("bound").to_string();
        let endpoints = [hanging, etcd.server.address().to_string()];
        let config = tower_sd_etcd::EtcdConfig::new(endpoints);
        let long = Duration::from_secs(60);
        let config = config.connect_timeout(long).request_timeout(long);
        let client = tower_sd_etcd::Etcd::new(config).expect("good settings");
        let registration = Registration::new("hung", instance("a", 8080));
        let handle = client.register(registration.fail_fast(SOON)).await.expect("it registers");
        handle.deregister().await.expect("it deregisters");
    })
    .await;
}
