//! A generated client on a `Channel`.

use std::time::Duration;

use tonic::{Code, Request, Status, metadata::MetadataValue};
use tower_sd_balance::{EndpointerConfig, FixedInstancer, HedgePolicy, Limits};
use tower_sd_tonic::Channel;

use crate::{
    calls::every_kind, echo::echo_client::EchoClient, failures::dead, message, server::Server,
};

#[test]
fn channel_is_send_sync_and_clone() {
    fn shared<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}
    shared::<Channel>();
}

#[tokio::test]
async fn every_kind_of_call_goes_through_a_channel() {
    let (a, b) = (Server::start(), Server::start());
    let channel = Channel::new(FixedInstancer::new([a.instance(), dead(), b.instance()]));
    channel.wait_until_ready(Duration::from_secs(5)).await.expect("ready");
    every_kind(EchoClient::new(channel.clone())).await;
    assert_eq!(channel.report().endpoints.len(), 3);
}

#[tokio::test]
async fn interceptor_adds_metadata_and_refuses() {
    let server = Server::start();
    let channel = Channel::new(FixedInstancer::new([server.instance()]));
    let adds = |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", MetadataValue::from_static("Bearer x"));
        Ok(request)
    };
    let mut client = EchoClient::with_interceptor(channel.clone(), adds);
    client.one(message("hello")).await.expect("answered");
    let stream = client.repeat(message("3")).await.expect("begins").into_inner();
    drop(stream);
    assert!(server.echo.seen().iter().all(|seen| seen.get("authorization").is_some()));

    let refuses = |_: Request<()>| Err(Status::permission_denied("no token"));
    let mut client = EchoClient::with_interceptor(channel, refuses);
    let status = client.one(message("hello")).await.expect_err("refused");
    assert_eq!(status.code(), Code::PermissionDenied);
}

/// It counts as the faster of the others: two thirds at most, of requests one after the other.
#[tokio::test]
async fn instance_that_refuses_fast_gets_not_nearly_all() {
    let rows = [(Status::resource_exhausted("busy"), 20), (Status::unauthenticated("who"), 105)];
    for (refusal, at_most) in rows {
        let servers = [Server::start_failing(refusal.clone()), Server::start(), Server::start()];
        let channel = Channel::new(FixedInstancer::new(servers.iter().map(Server::instance)));
        channel.wait_until_ready(Duration::from_secs(5)).await.expect("ready");
        let (mut client, mut n_refused) = (EchoClient::new(channel), 0);
        for _ in 0..120 {
            n_refused += usize::from(client.one(message("work")).await.is_err());
        }
        assert!(n_refused <= at_most, "{refusal}: {n_refused}");
    }
}

#[tokio::test]
async fn only_idempotent_methods_are_repeated_at_another_instance() {
    let unavailable = || Status::unavailable("overloaded");
    let servers = [Server::start_failing(unavailable()), Server::start()];
    let instancer = FixedInstancer::new(servers.iter().map(Server::instance));
    let mut safe =
        EchoClient::new(Channel::builder(instancer.clone()).idempotent(["echo.Echo/One"]).build());
    let mut plain = EchoClient::new(Channel::new(instancer));
    let mut n_failed = 0;
    for _ in 0..30 {
        safe.one(message("hello")).await.expect("repeated");
        n_failed += usize::from(plain.one(message("hello")).await.is_err());
    }
    assert!(n_failed > 0, "a failure reaches the caller");
}

#[tokio::test]
async fn status_names_the_instance_and_the_attempts() {
    let server = Server::start_failing(Status::unavailable("overloaded"));
    let channel =
        Channel::builder(FixedInstancer::new([server.instance()])).idempotent(["echo.Echo"]);
    let mut client = EchoClient::new(channel.retry(|policy| policy.max_attempts(2)).build());
    let status = client.one(message("hello")).await.expect_err("overloaded");
    assert_eq!((status.code(), server.echo.seen().len()), (Code::Unavailable, 2));
    let empty = Channel::new(FixedInstancer::new([]));
    let status = EchoClient::new(empty).one(message("hello")).await.expect_err("empty");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("no instances"), "{status}");
}

#[tokio::test]
async fn only_idempotent_methods_are_hedged_at_another_instance() {
    for (methods, n_calls) in [(vec!["echo.Echo"], 2), (vec![], 1)] {
        let servers = [Server::start(), Server::start()];
        let channel = Channel::builder(FixedInstancer::new(servers.iter().map(Server::instance)))
            .idempotent(methods)
            .hedge(HedgePolicy::after(Duration::from_millis(20)))
            .build();
        channel.wait_until_ready(Duration::from_secs(5)).await.expect("ready");
        let mut request = Request::new(message("slow"));
        request.set_timeout(Duration::from_secs(1));
        let status = EchoClient::new(channel).one(request).await.expect_err("slow");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let seen = servers.iter().map(|server| server.echo.seen().len());
        assert_eq!(seen.sum::<usize>(), n_calls);
    }
}

/// A stream counts until it has ended.
#[tokio::test]
async fn call_above_the_limit_is_refused() {
    let server = Server::start();
    let channel = Channel::builder(FixedInstancer::new([server.instance()]))
        .endpointer(EndpointerConfig::new().limits(Limits::new().max_requests(1)))
        .build();
    let mut client = EchoClient::new(channel.clone());
    let stream = client.repeat(message("open")).await.expect("begins").into_inner();
    let status = client.one(message("hello")).await.expect_err("a stream is open");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    drop(stream);
    client.one(message("hello")).await.expect("answered");
    assert_eq!(channel.report().limits.refused_requests, 1);
}

#[tokio::test]
async fn timeouts_bound_a_call_and_each_attempt() {
    let (server, bound) = (Server::start(), Duration::from_millis(200));
    let builder = || Channel::builder(FixedInstancer::new([server.instance()]));
    for (channel, n_timed_out) in [
        (builder().timeout(bound).build(), 1),
        (builder().idempotent(["echo.Echo"]).per_try_timeout(bound).build(), 3),
    ] {
        let status = EchoClient::new(channel.clone()).one(message("slow")).await.expect_err("late");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert_eq!(channel.report().endpoints[0].outcomes.timed_out, n_timed_out, "{status}");
    }
}
