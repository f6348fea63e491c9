//! Instances that vanish, refuse, and hang.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, pause, resume, sleep, timeout};
use tower_sd_balance::{
    AddressPolicy, FixedInstancer, Instance, NoInstancesReason, RetryPolicy, RoundRobin,
};
use tower_sd_testkit::{load::paced, loopback::BlackHole};

use super::{client, outcomes::stalling, with_tls};
use crate::{
    ClientErrorKind, HttpError, HttpErrorKind, HttpProtocol,
    reqwest::{InstanceResolver, ReqwestClient},
    tests::{dead, server::Server},
};

const PER_TRY: Duration = Duration::from_millis(300);
const BOUND: Duration = Duration::from_secs(20);

fn orders(
    instances: impl IntoIterator<Item = Instance>,
    change: impl FnOnce(RetryPolicy<HttpProtocol>) -> RetryPolicy<HttpProtocol>,
) -> ReqwestClient {
    ReqwestClient::builder(FixedInstancer::new(instances))
        .client(|_| client().connect_timeout(Duration::from_secs(1)))
        .balancer(RoundRobin::new())
        .retry(|policy| change(policy.backoff(Duration::ZERO, Duration::ZERO)))
        .build()
        .expect("a client")
}

/// 200 requests a second, of which none may be sent twice: none fails.
///
/// reqwest connects with each of them, until five have failed: then it dials once in a while.
#[tokio::test]
async fn no_post_fails_beside_a_black_hole() {
    let (hole, server) = (BlackHole::open().await.expect("loopback"), Server::echo().await);
    let orders = orders([hole.instance(), server.instance()], |it| it.per_try_timeout(PER_TRY));
    orders.wait_until_ready(BOUND).await.expect("ready");
    let control = self::orders([server.instance()], |it| it);
    control.wait_until_ready(BOUND).await.expect("ready");
    let mut n_dials = 0;
    let send = |orders: &ReqwestClient| {
        let orders = orders.clone();
        async move {
            let post = orders.client().post("http://orders/").body("order");
            orders.send(post).await.map(drop)
        }
    };
    let interval = Duration::from_millis(5);
    let posts = paced(600, interval, |i| {
        // Not each time: it reads the tables of all sockets.
        if i >= 200 && i % 20 == 0 {
            n_dials = n_dials.max(hole.n_dials().expect("Linux"));
        }
        send(&orders)
    });
    let (posts, controls) = tokio::join!(posts, paced(600, interval, |_| send(&control)));
    // Where the machine itself takes so long, tries time out.
    let is_fit = posts.errors.is_empty() || controls.slowest() > PER_TRY / 3;
    assert!(is_fit, "{:?}", posts.errors);
    let (p99, without) = (posts.p99_after(200), controls.p99_after(200));
    assert!(p99 <= Duration::from_millis(50) + without * 2, "{p99:?} {without:?}");
    assert!(n_dials <= 4, "{n_dials}");
    let report = orders.report().endpoints;
    let id = hole.instance().id().clone();
    let hole = report.iter().find(|endpoint| *endpoint.instance.id() == id).expect("a member");
    assert!(hole.outcomes.not_sent > 0, "{:?}", hole.outcomes);
    assert_eq!(hole.outcomes.timed_out, 0);
}

/// reqwest connects with the request in hand: each instance is tried once, and names itself.
#[tokio::test]
async fn post_that_all_refuse_is_tried_at_each() {
    let instances = [dead(), dead(), dead()];
    let orders = orders(instances, |it| it.per_try_timeout(PER_TRY));
    orders.wait_until_ready(BOUND).await.expect("ready");
    let begun = Instant::now();
    let error = orders.send(orders.client().post("http://orders/").body("order")).await;
    let error = error.expect_err("all refuse");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let kind = ClientErrorKind::NoInstances(NoInstancesReason::Refused);
    assert_eq!((error.kind(), error.attempts().len()), (kind, 3));
    assert_eq!(error.status().as_u16(), 503);
    let mut tried: Vec<_> = error.attempts().iter().filter_map(|it| it.instance()).collect();
    tried.sort();
    tried.dedup();
    assert_eq!(tried.len(), 3);
    let report = orders.report().endpoints;
    assert!(report.iter().all(|endpoint| endpoint.outcomes.not_sent == 1), "{report:?}");
}

#[tokio::test]
async fn hanging_instance_of_three_costs_one_timeout_a_request() {
    let hanging = Server::start(async |mut peer| {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let (one, two) = (Server::echo().await, Server::echo().await);
    let instances = [hanging.instance(), one.instance(), two.instance()];
    let orders = orders(instances, |it| it.per_try_timeout(PER_TRY));
    orders.wait_until_ready(BOUND).await.expect("ready");
    for _ in 0..9 {
        let begun = Instant::now();
        let response = orders.send(orders.client().get("http://orders/")).await.expect("answered");
        response.bytes().await.expect("whole");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    let report = orders.report().endpoints;
    let id = hanging.instance().id().clone();
    let hung = report.iter().find(|endpoint| *endpoint.instance.id() == id).expect("a member");
    assert!(hung.picks >= 1);
    assert_eq!((hung.outcomes.timed_out, hung.failures), (hung.picks, hung.picks));
    assert_eq!(report.iter().map(|endpoint| endpoint.outcomes.success).sum::<u64>(), 9);
}

#[tokio::test]
async fn closed_client_sends_nothing_and_waits_for_nothing() {
    let server = Server::echo().await;
    let orders = orders([server.instance()], |it| it);
    orders.send(orders.client().get("http://orders/")).await.expect("answered");
    timeout(BOUND, orders.close()).await.expect("in time");
    let error = orders.send(orders.client().get("http://orders/")).await.expect_err("closed");
    assert!(matches!(error.kind(), ClientErrorKind::NoInstances(_)), "{error}");
}

/// A client with the settings that it has by default.
fn plain(instance: Instance) -> ReqwestClient {
    let instancer = FixedInstancer::new([instance]);
    ReqwestClient::builder(instancer).client(with_tls).build().expect("a client")
}

#[tokio::test]
async fn stalled_body_ends_without_a_timeout_of_the_user() {
    let server = stalling().await;
    let orders = plain(server.instance());
    let mut response = orders.send(orders.client().get("http://orders/")).await.expect("a head");
    response.chunk().await.expect("in time").expect("a letter");
    pause();
    let bound = Duration::from_secs(600);
    let error = timeout(bound, response.chunk()).await.expect("in time").expect_err("stalled");
    resume();
    let error = HttpError::find(&error).expect("ours");
    assert_eq!(error.kind(), HttpErrorKind::BodyTimeout);
    assert_eq!(orders.report().endpoints[0].outcomes.timed_out, 1);
}

/// Node, uvicorn and Apache close it then, and a POST may cross that.
#[tokio::test]
async fn connection_idle_for_5_s_is_not_used_again() {
    let server = Server::echo().await;
    let orders = plain(server.instance());
    for _ in 0..2 {
        let response = orders.send(orders.client().post("http://orders/")).await;
        response.expect("answered").bytes().await.expect("whole");
        sleep(Duration::from_millis(4_500)).await;
    }
    assert_eq!(server.n_accepted(), 2);
}

/// As each other connector does, it checks the addresses of an instance's host name.
#[tokio::test]
async fn host_name_of_a_denied_address_is_not_connected_to() {
    let server = Server::echo().await;
    let instance = Instance::new("localhost", server.instance().port());
    let loopback = ["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("a network"));
    let policy = AddressPolicy::default().deny(loopback);
    let denying = InstanceResolver::new().addresses(policy).check_all_names();
    let orders = ReqwestClient::builder(FixedInstancer::new([instance.clone()]))
        .client(|client| with_tls(client).dns_resolver(Arc::new(denying)))
        .build()
        .expect("a client");
    let error = orders.send(orders.client().get("http://orders/")).await.expect_err("denied");
    let last = std::iter::successors(Some(&error as &dyn std::error::Error), |it| it.source());
    let last = last.last().expect("itself").to_string();
    assert!(last.ends_with(": in a denied network"), "{last}");
    assert_eq!(server.n_accepted(), 0);
    let orders = plain(instance);
    orders.send(orders.client().get("http://orders/")).await.expect("loopback is allowed");
}

#[tokio::test]
async fn timeouts_bound_a_request_and_each_attempt() {
    let server = Server::start(async |mut peer| peer.closed().await).await;
    let builder =
        || ReqwestClient::builder(FixedInstancer::new([server.instance()])).client(|_| client());
    for (orders, n_timed_out) in
        [(builder().timeout(PER_TRY), 1), (builder().per_try_timeout(PER_TRY), 3)]
    {
        let orders = orders.build().expect("a client");
        let request = orders.client().get("http://orders/").build().expect("a request");
        timeout(BOUND, orders.execute(request))
            .await
            .expect("in time")
            .map(drop)
            .expect_err("late");
        assert_eq!(orders.report().endpoints[0].outcomes.timed_out, n_timed_out);
    }
}
