//! A stream is load until it ends.

use std::time::Duration;

use futures_util::stream;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_sd_balance::RetryPolicy;

use crate::{Endpoints, balanced, endpointer, message, retried, server::Server};

fn in_flight(endpointer: &Endpoints) -> usize {
    endpointer.report().endpoints.iter().map(|endpoint| endpoint.in_flight).sum()
}

#[tokio::test]
async fn open_stream_is_load_until_its_end() {
    let server = Server::start();
    let endpointer = endpointer([server.instance()]);
    let mut client = retried(&endpointer, RetryPolicy::new());
    let mut stream = client.repeat(message("3")).await.expect("a stream").into_inner();
    for _ in 0..3 {
        assert_eq!(in_flight(&endpointer), 1);
        assert!(stream.message().await.expect("one more").is_some());
    }
    assert!(stream.message().await.expect("the end").is_none());
    assert_eq!(in_flight(&endpointer), 0);
    drop(stream);
    assert_eq!(in_flight(&endpointer), 0);
}

#[tokio::test]
async fn open_stream_is_load_until_it_is_dropped() {
    let server = Server::start();
    let endpointer = endpointer([server.instance()]);
    let mut client = balanced(&endpointer);
    let mut streams = Vec::new();
    for n in 1..=3 {
        let mut stream = client.repeat(message("open")).await.expect("a stream").into_inner();
        assert!(stream.message().await.expect("the first").is_some());
        streams.push(stream);
        assert_eq!(in_flight(&endpointer), n);
    }
    drop(streams.pop());
    assert_eq!(in_flight(&endpointer), 2);
    drop(streams);
    assert_eq!(in_flight(&endpointer), 0);
    assert_eq!(endpointer.report().endpoints[0].failures, 0, "the caller's choice");
}

#[tokio::test]
async fn open_stream_is_load_until_it_fails() {
    let mut server = Server::start();
    let endpointer = endpointer([server.instance()]);
    let mut client = balanced(&endpointer);
    let mut stream = client.repeat(message("fail")).await.expect("a stream").into_inner();
    assert!(stream.message().await.expect("the first").is_some());
    assert_eq!(in_flight(&endpointer), 1);
    stream.message().await.expect_err("as scripted");
    assert_eq!(in_flight(&endpointer), 0);

    let mut stream = client.repeat(message("open")).await.expect("a stream").into_inner();
    assert!(stream.message().await.expect("the first").is_some());
    server.kill();
    stream.message().await.expect_err("an answer cut short is no end");
    assert_eq!(in_flight(&endpointer), 0);
    assert_eq!(endpointer.report().endpoints[0].failures, 2);
}

#[tokio::test]
async fn request_that_streams_is_load_until_it_is_answered() {
    let server = Server::start();
    let endpointer = endpointer([server.instance()]);
    let mut client = balanced(&endpointer);
    let mut calling = JoinSet::new();
    calling.spawn(async move { client.collect(stream::pending()).await });
    let deadline = Instant::now() + Duration::from_secs(5);
    while in_flight(&endpointer) == 0 {
        assert!(Instant::now() < deadline, "it has begun");
        sleep(Duration::from_millis(5)).await;
    }
    calling.shutdown().await;
    assert_eq!(in_flight(&endpointer), 0);
}
