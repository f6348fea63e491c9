//! What a caller of the whole stack sees of servers that misbehave.
//!
//! The stack is Retry, Balance and endpoints.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, timeout::TimeoutLayer};
use tower_sd_balance::{
    Balance, BalanceLayer, BoxError, Endpointer, FactoryExt, FixedInstancer, Instance, Retry,
    RetryLayer, RetryPolicy, RoundRobin,
};

use super::{
    Sent, get,
    http2::server::{Server as Http2Server, answer},
    server::{OK, Server},
};
use crate::{HttpEndpoint, HttpError, HttpErrorKind, HttpFactory, HttpProtocol, HttpVersion};

struct Stack(Retry<Balance<HttpEndpoint<Sent>>, HttpProtocol>);

impl Stack {
    fn new(protocol: HttpVersion, instances: impl IntoIterator<Item = Instance>) -> Self {
        let factory = HttpFactory::new().version(protocol);
        let endpointer = Endpointer::new(&FixedInstancer::new(instances), factory);
        let policy = RetryPolicy::new().without_budget().protocol(HttpProtocol::new());
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(policy))
            .layer(BalanceLayer::new(RoundRobin::new()))
            .service(endpointer);
        Self(service)
    }

    async fn fetch(&mut self, request: Request<Sent>) -> Result<Bytes, BoxError> {
        let response = self.0.ready().await?.call(request).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }
}

fn request(method: Method) -> Request<Sent> {
    let mut request = get("/");
    *request.method_mut() = method;
    request
}

fn kind(error: &BoxError) -> HttpErrorKind {
    HttpError::find(&**error).expect("an error of ours").kind()
}

/// Applies `misbehave` to the first request, and answers the others: how many it has seen, and the
/// outcome.
async fn first_and_then<F, Fut>(method: Method, misbehave: F) -> (usize, Result<Bytes, BoxError>)
where
    F: Fn(super::server::Peer) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let n_seen = Arc::new(AtomicUsize::new(0));
    let (seen, misbehave) = (Arc::clone(&n_seen), Arc::new(misbehave));
    let server = Server::start(move |mut peer| {
        let (seen, misbehave) = (Arc::clone(&seen), Arc::clone(&misbehave));
        async move {
            while peer.request().await.is_some() {
                if seen.fetch_add(1, Ordering::SeqCst) == 0 {
                    return misbehave(peer).await;
                }
                peer.write(OK).await;
            }
        }
    })
    .await;
    let mut stack = Stack::new(HttpVersion::Http1, [server.instance()]);
    let outcome = timeout(Duration::from_secs(5), stack.fetch(request(method))).await;
    (n_seen.load(Ordering::SeqCst), outcome.expect("in time"))
}

#[tokio::test]
async fn idempotent_request_is_repeated_after_any_broken_answer() {
    for fault in 0..3 {
        let misbehave = move |mut peer: super::server::Peer| async move {
            match fault {
                0 => drop(peer),
                1 => peer.reset(),
                _ => peer.write("SSH-2.0-OpenSSH_9.2\r\n\r\n").await,
            }
        };
        let (n_seen, outcome) = first_and_then(Method::GET, misbehave).await;
        assert_eq!((n_seen, outcome.expect("repeated")), (2, Bytes::from("ok")), "{fault}");
        let (n_seen, outcome) = first_and_then(Method::POST, misbehave).await;
        assert_eq!(kind(&outcome.expect_err("not repeated")), HttpErrorKind::Io, "{fault}");
        assert_eq!(n_seen, 1, "{fault}");
    }
}

#[tokio::test]
async fn body_cut_short_is_an_error_even_of_a_repeatable_request() {
    for head in ["content-length: 4", "transfer-encoding: chunked"] {
        let half = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n2\r\n");
        let misbehave = move |mut peer: super::server::Peer| {
            let half = half.clone();
            async move { peer.write(&half).await }
        };
        let (n_seen, outcome) = first_and_then(Method::GET, misbehave).await;
        assert_eq!(kind(&outcome.expect_err("cut short")), HttpErrorKind::Body);
        assert_eq!(n_seen, 1);
    }
}

/// The race: a server closes an idle connection at the moment when we send on it.
#[tokio::test]
async fn close_that_crosses_a_request_fails_no_idempotent_one() {
    let n_seen = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&n_seen);
    let server = Server::start(move |mut peer| {
        let seen = Arc::clone(&seen);
        async move {
            peer.request().await;
            seen.fetch_add(1, Ordering::SeqCst);
            peer.write(OK).await;
            // Sometimes before the next request is written, sometimes after.
            sleep(Duration::from_micros(fastrand::u64(..1500))).await;
        }
    })
    .await;
    for method in [Method::GET, Method::POST] {
        let mut stack = Stack::new(HttpVersion::Http1, [server.instance()]);
        for _ in 0..200 {
            let before = n_seen.load(Ordering::SeqCst);
            let outcome = stack.fetch(request(method.clone())).await;
            let n_seen = n_seen.load(Ordering::SeqCst) - before;
            match outcome {
                Ok(_) => assert_eq!(n_seen, 1),
                Err(error) => {
                    assert_eq!((&method, kind(&error)), (&Method::POST, HttpErrorKind::Io));
                }
            }
            sleep(Duration::from_micros(fastrand::u64(..1500))).await;
        }
    }
}

#[tokio::test]
async fn slow_answer_is_waited_for_unless_a_layer_bounds_it() {
    let slow = Server::start(async |mut peer| {
        while peer.request().await.is_some() {
            sleep(Duration::from_millis(300)).await;
            peer.write(OK).await;
        }
    })
    .await;
    let mut stack = Stack::new(HttpVersion::Http1, [slow.instance()]);
    assert_eq!(stack.fetch(get("/")).await.expect("waited for"), "ok");
    let impatient = HttpFactory::<Sent>::new().layer(TimeoutLayer::new(Duration::from_millis(50)));
    let endpointer = Endpointer::new(&FixedInstancer::new([slow.instance()]), impatient);
    let mut balance =
        ServiceBuilder::new().layer(BalanceLayer::new(RoundRobin::new())).service(endpointer);
    let started = Instant::now();
    let outcome = balance.ready().await.expect("always").call(get("/")).await;
    let error = outcome.map(drop).expect_err("too slow");
    assert!(error.is::<tower::timeout::error::Elapsed>(), "{error}");
    assert!(started.elapsed() < Duration::from_millis(250), "{:?}", started.elapsed());
}

#[tokio::test]
async fn http_2_repeats_refused_requests_and_broken_idempotent_ones() {
    use h2::Reason;
    for (reason, method, n_wanted) in [
        (Reason::REFUSED_STREAM, Method::POST, 2),
        (Reason::INTERNAL_ERROR, Method::GET, 2),
        (Reason::INTERNAL_ERROR, Method::POST, 1),
    ] {
        let (server, n_seen) = Http2Server::resetting_the_first(reason).await;
        let mut stack = Stack::new(HttpVersion::Http2, [server.instance()]);
        let outcome = stack.fetch(request(method)).await;
        assert_eq!(n_seen.load(Ordering::SeqCst), n_wanted, "{reason:?}");
        assert_eq!(outcome.is_ok(), n_wanted == 2, "{reason:?}");
    }
}

#[tokio::test]
async fn slow_body_over_http_2_does_not_hold_up_the_others() {
    let server = Http2Server::start(100, async |request, mut reply| {
        if request.uri().path() == "/slow" {
            let mut stream = reply.send_response(Response::new(()), false).expect("a stream");
            sleep(Duration::from_millis(1500)).await;
            stream.send_data(Bytes::from("late"), true).expect("a stream");
        } else {
            answer(reply, "ok");
        }
    })
    .await;
    let mut stack = Stack::new(HttpVersion::Http2, [server.instance()]);
    let slow = stack.0.ready().await.expect("always").call(get("/slow")).await.expect("begins");
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(stack.fetch(get("/")).await.expect("answers"), "ok");
    }
    assert!(started.elapsed() < Duration::from_millis(1250), "{:?}", started.elapsed());
    assert_eq!(slow.into_body().collect().await.expect("whole").to_bytes(), "late");
    assert_eq!(server.n_accepted(), 1);
}

/// A task hides what an endpoint has done before its own client failed.
#[tokio::test]
async fn nested_connect_error_behind_a_task_is_not_repeated() {
    #[derive(Debug)]
    struct Mailing(HttpError);
    impl std::fmt::Display for Mailing {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the mailer failed")
        }
    }
    impl std::error::Error for Mailing {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    for (is_nested, n_wanted) in [(true, 1), (false, 3)] {
        let n_seen = Arc::<AtomicUsize>::default();
        let seen = Arc::clone(&n_seen);
        let endpointer =
            Endpointer::with(&FixedInstancer::new([Instance::new("shop", 1)]), move |_instance| {
                let seen = Arc::clone(&seen);
                let shop = service_fn(move |_: Request<Sent>| {
                    seen.fetch_add(1, Ordering::SeqCst);
                    let refused = HttpError::new(HttpErrorKind::Connect, &"mailer:1".into(), "no");
                    let error: BoxError =
                        if is_nested { Mailing(refused).into() } else { refused.into() };
                    async { Err::<Response<Sent>, _>(error) }
                });
                async { Ok::<_, BoxError>(shop) }
            });
        let balance = BalanceLayer::new(RoundRobin::new()).layer(endpointer);
        let policy = RetryPolicy::new().protocol(HttpProtocol::new());
        let spawning = service_fn(move |request| {
            let mut tasks = JoinSet::new();
            tasks.spawn(balance.clone().oneshot(request));
            async move { tasks.join_next().await.expect("one").expect("no panic") }
        });
        let client = RetryLayer::new(policy).layer(spawning);
        client.oneshot(request(Method::POST)).await.map(drop).expect_err("fails");
        assert_eq!(n_seen.load(Ordering::SeqCst), n_wanted);
    }
}
