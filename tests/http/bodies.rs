use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use tower_sd_balance::RetryError;
use tower_sd_http::{HttpProtocol, Idempotent, ReplayBody};
use tower_sd_testkit::script::{Reply, Script};

use super::{Sent, balanced, dying, endpointer, fetch, instance, polite, post, retried};

/// As a gateway gets them: neither `Clone` nor `Sync`.
type Streamed = UnsyncBoxBody<Bytes, Infallible>;

fn streamed(chunk: &'static [u8], n: usize) -> Streamed {
    let chunks = (0..n).map(move |_| Ok(Frame::data(Bytes::from_static(chunk))));
    StreamBody::new(stream::iter(chunks)).boxed_unsync()
}

fn order(body: Streamed) -> http::Request<ReplayBody<Streamed>> {
    let mut order = post(ReplayBody::new(body));
    order.extensions_mut().insert(Idempotent);
    order
}

#[tokio::test]
async fn streamed_body_is_sent_whole_a_second_time() {
    let (good, bad) = (polite().await, dying().await);
    let endpointer = endpointer([instance(&good), instance(&bad)]);
    let client = retried(&endpointer, HttpProtocol::new());
    for _ in 0..20 {
        let order = order(streamed(&[b'x'; 1_000], 60));
        assert_eq!(fetch(&client, order).await.expect("repeated"), "ok");
    }
    assert!(bad.received().iter().chain(&good.received()).all(|r| r.body.len() == 60_000));
    // Five failures eject it for a second.
    assert!(bad.received().len() >= 5);
}

#[tokio::test]
async fn body_above_64_kib_is_streamed_and_sent_once() {
    let bad = dying().await;
    let endpointer = endpointer([instance(&bad)]);
    let client = retried(&endpointer, HttpProtocol::new());
    let large = order(streamed(&[b'x'; 1024], 65));
    let error = fetch(&client, large).await.expect_err("died");
    let error: &RetryError = error.downcast_ref().expect("a retry error");
    assert_eq!(error.attempts().len(), 1, "{error}");
    assert_eq!(bad.received().len(), 1);
    assert_eq!(bad.received()[0].body.len(), 65 * 1024);
}

#[tokio::test]
async fn body_of_any_kind_is_balanced_without_retry() {
    let good = polite().await;
    let endpointer = endpointer([instance(&good)]);
    let client = balanced(&endpointer);
    assert_eq!(fetch(&client, post(streamed(b"ab", 3))).await.expect("answers"), "ok");
    assert_eq!(good.received()[0].body, "ababab");
}

#[tokio::test]
async fn answer_cut_short_is_an_error_and_counts_for_its_instance() {
    let cutting =
        Script::answering(|_| Reply::new(200).header("content-length", "9").chunk("ha").cut());
    let cutting = cutting.await.expect("loopback");
    let endpointer = endpointer([instance(&cutting)]);
    let request = post(Sent::from("x"));
    fetch(&balanced(&endpointer), request).await.expect_err("cut short");
    assert_eq!(endpointer.report().endpoints[0].failures, 1);
}
