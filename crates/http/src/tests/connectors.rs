//! Streams that are not the factory's own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::{server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::DuplexStream, sync::mpsc, task::JoinSet, time::timeout};
use tower_sd::{BoxError, Instance};

use super::{Sent, fetch, get};
use crate::{HttpErrorKind, HttpFactory, Protocol};

/// Answers `name` to each request on each stream.
fn serve(protocol: Protocol) -> (mpsc::Sender<DuplexStream>, JoinSet<()>) {
    let (sender, mut streams) = mpsc::channel::<DuplexStream>(8);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut peers = JoinSet::new();
        while let Some(stream) = streams.recv().await {
            peers.spawn(async move {
                let answer = service_fn(async |_| {
                    Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(
                        "in memory",
                    )))
                });
                let io = TokioIo::new(stream);
                // The client closes as it likes.
                drop(match protocol {
                    Protocol::Http1 => {
                        conn::http1::Builder::new().serve_connection(io, answer).await
                    }
                    _ => {
                        let builder = conn::http2::Builder::new(TokioExecutor::new());
                        builder.serve_connection(io, answer).await
                    }
                });
            });
        }
    });
    (sender, tasks)
}

#[tokio::test]
async fn connector_takes_the_place_of_tcp_in_both_protocols() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (streams, _tasks) = serve(protocol);
        let factory =
            HttpFactory::<Sent>::new().protocol(protocol).connector(move |instance: Instance| {
                let streams = streams.clone();
                async move {
                    assert_eq!(instance.host(), "nowhere");
                    let (ours, theirs) = tokio::io::duplex(1024);
                    streams.send(theirs).await?;
                    Ok::<_, BoxError>(ours)
                }
            });
        let endpoint = factory.endpoint(&Instance::new("nowhere", 1)).expect("a name");
        for _ in 0..3 {
            let body: Bytes = fetch(&endpoint, get("/")).await.expect("answers");
            assert_eq!(body, "in memory");
        }
    }
}

#[tokio::test]
async fn connector_that_fails_or_hangs_is_a_failed_connect() {
    let hang = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let hangs = Arc::clone(&hang);
    let factory = HttpFactory::<Sent>::new().connect_timeout(Duration::from_millis(100)).connector(
        move |_: Instance| {
            let hang = hangs.load(std::sync::atomic::Ordering::SeqCst);
            async move {
                if hang {
                    std::future::pending::<()>().await;
                }
                Err::<DuplexStream, _>(BoxError::from("the proxy refused"))
            }
        },
    );
    let endpoint = factory.endpoint(&Instance::new("nowhere", 1)).expect("a name");
    for reason in ["the proxy refused", "not connected within 100ms"] {
        let fetched = timeout(Duration::from_secs(20), fetch(&endpoint, get("/"))).await;
        let error = fetched.expect("in time").expect_err("fails");
        assert_eq!(error.kind(), HttpErrorKind::Connect);
        assert!(format!("{error:?}").contains(reason), "{error:?}");
        hang.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}
