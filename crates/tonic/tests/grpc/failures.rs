//! Servers that are dead, die, and close with GOAWAY.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    client::GrpcService,
    transport::{Channel, Endpoint, channel::Change},
};
use tower_sd_balance::{Instance, RetryPolicy};
use tower_sd_testkit::loopback::refusing;

use crate::{
    balanced, echo::echo_client::EchoClient, endpointer, message, retried, server::Server,
};

/// Its port refuses connections.
pub(crate) fn dead() -> Instance {
    refusing().expect("loopback")
}

/// Several at a time, until `stop`; how many there were, and the errors of those that failed.
async fn traffic<S>(
    client: EchoClient<S>,
    stop: impl Fn(usize) -> bool + Clone,
) -> (usize, Vec<Status>)
where
    S: GrpcService<tonic::body::Body, Future: Send> + Clone + Send + 'static,
    S::Error: Into<tower_sd_balance::BoxError> + Send,
    S::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<tower_sd_balance::BoxError> + Send,
{
    let n_calls = Arc::new(AtomicUsize::new(0));
    let callers = (0..N_CALLERS).map(|_| {
        let (mut client, n_calls, stop) = (client.clone(), Arc::clone(&n_calls), stop.clone());
        async move {
            let mut failures = Vec::new();
            while !stop(n_calls.fetch_add(1, SeqCst)) {
                failures.extend(client.one(message("hello")).await.err());
            }
            failures
        }
    });
    let failures = futures_util::future::join_all(callers).await.concat();
    (n_calls.load(SeqCst) - N_CALLERS, failures)
}

/// Waits until each has had a hundred calls.
async fn until_called(servers: impl IntoIterator<Item = &Server>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    for server in servers {
        while server.echo.seen().len() < 100 {
            assert!(Instant::now() < deadline, "all of them are called");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn of_two_servers_one_is_dead_and_no_call_fails_without_retries() {
    let server = Server::start();
    let instances = [server.instance(), dead()];
    let ten_thousand = |n| n >= 10_000;

    let ours = balanced(&endpointer(instances.clone()));
    let (n_calls, failures) = traffic(ours, ten_thousand).await;

    let (peer, changes) = Channel::balance_channel(2);
    for instance in instances {
        let endpoint = Endpoint::from_shared(format!("http://{instance}")).expect("an address");
        changes.send(Change::Insert(instance.to_string(), endpoint)).await.expect("room");
    }
    let (n_peer, peer_failures) = traffic(EchoClient::new(peer), ten_thousand).await;

    println!("ours: {} of {n_calls} calls failed", failures.len());
    println!("tonic's balance_channel: {} of {n_peer} calls failed", peer_failures.len());
    assert!(failures.is_empty(), "{:?}", failures.first());
    // Its endpoints are ready after a failed connect, and fail the next call with it.
    assert!(peer_failures.len() >= 500, "{}", peer_failures.len());
    assert_eq!((n_calls, n_peer), (10_000, 10_000));
}

#[tokio::test]
async fn server_is_killed_under_traffic_and_one_retry_hides_it() {
    let (mut victim, survivor) = (Server::start(), Server::start());
    let endpointer = endpointer([victim.instance(), survivor.instance()]);
    let policy = RetryPolicy::new().max_attempts(2).idempotent();
    let client = retried(&endpointer, policy);
    let over = CancellationToken::new();
    let stop = over.clone();
    let mut callers = JoinSet::new();
    callers.spawn(traffic(client, move |_| stop.is_cancelled()));
    until_called([&victim, &survivor]).await;
    victim.kill();
    sleep(Duration::from_millis(300)).await;
    over.cancel();
    let (n_calls, failures) = callers.join_next().await.expect("one").expect("no panic");
    assert!(failures.is_empty(), "{} of {n_calls}: {:?}", failures.len(), failures.first());
}

/// No call is declared idempotent: what a server has not read before its GOAWAY was not acted on.
#[tokio::test]
async fn servers_shut_down_in_turn_under_traffic_fail_no_call() {
    let mut servers = [Server::start(), Server::start(), Server::start()];
    let endpointer = endpointer(servers.iter().map(Server::instance));
    let client = retried(&endpointer, RetryPolicy::new());
    let over = CancellationToken::new();
    let stop = over.clone();
    let mut callers = JoinSet::new();
    callers.spawn(traffic(client, move |_| stop.is_cancelled()));
    until_called(&servers).await;
    for server in &mut servers[..2] {
        sleep(Duration::from_millis(200)).await;
        server.shut_down().await;
    }
    sleep(Duration::from_millis(200)).await;
    over.cancel();
    let (n_calls, failures) = callers.join_next().await.expect("one").expect("no panic");
    assert!(failures.is_empty(), "{} of {n_calls}: {:?}", failures.len(), failures.first());
}

#[tokio::test]
async fn missing_answer_is_unavailable_with_the_reason() {
    let instance = dead();
    let endpointer = endpointer([instance.clone()]);
    let status =
        retried(&endpointer, RetryPolicy::new().max_attempts(2)).one(message("hello")).await;
    let status = status.expect_err("no instance");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("after attempt 1"), "{}", status.message());

    // Without our layer on top the code is right too: it is in the chain of sources.
    let status = balanced(&endpointer).one(message("hello")).await.expect_err("no instance");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains(&instance.to_string()), "{}", status.message());
}

const N_CALLERS: usize = 32;
