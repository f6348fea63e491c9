//! Over real sockets, against servers that answer, refuse, die and hang.

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::{
    task::{JoinSet, yield_now},
    time::Instant,
};
use tower::{
    ServiceExt, layer::util::Identity, limit::ConcurrencyLimitLayer, timeout::TimeoutLayer,
};
use tower_sd_balance::{
    EndpointerConfig, FactoryExt, FixedInstancer, HedgePolicy, Limits, Maglev, NoInstancesReason,
    RequestScope, RoundRobin, Served,
};
use tower_sd_testkit::stall::with_stall;

use super::{Body, Client, ClientError, ClientErrorKind, ClientFuture, RequestBody};
use crate::{
    HttpProtocol, RepeatableBody,
    tests::{
        dead,
        server::{OK, Server},
    },
};

const URI: &str = "http://orders/a";

/// How often each path was received.
type Received = Arc<Mutex<HashMap<String, usize>>>;

#[derive(Clone, Copy)]
enum Manner {
    Answers,
    Dies,
    Hangs,
}

async fn server(manner: Manner, received: &Received) -> Server {
    let received = Arc::clone(received);
    Server::start(move |mut peer| {
        let received = Arc::clone(&received);
        async move {
            while let Some(head) = peer.request().await {
                let path = head.split(' ').nth(1).expect("a request line").to_owned();
                *received.lock().expect("no panic").entry(path).or_default() += 1;
                match manner {
                    Manner::Answers => peer.write(OK).await,
                    Manner::Dies => return,
                    Manner::Hangs => pending().await,
                }
            }
        }
    })
    .await
}

fn get() -> Request<String> {
    Request::get(URI).body(String::new()).expect("a valid request")
}

fn of(servers: &[Server]) -> FixedInstancer {
    FixedInstancer::new(servers.iter().map(Server::instance))
}

async fn text(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.expect("whole").to_bytes()
}

#[tokio::test]
async fn client_is_send_sync_and_clone_and_its_future_send() {
    fn shared<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Client>();
    sent::<(ClientFuture, Body, ClientError, RequestBody)>();
    assert!(Body::default().collect().await.expect("empty").to_bytes().is_empty());
}

/// The servers of a service in trouble: one of four is well.
async fn troubled() -> (FixedInstancer, Vec<Server>, Received) {
    let received = Received::default();
    let mut servers = Vec::new();
    for manner in [Manner::Answers, Manner::Dies, Manner::Hangs] {
        servers.push(server(manner, &received).await);
    }
    let instances = servers.iter().map(Server::instance).chain([dead()]);
    (FixedInstancer::new(instances), servers, received)
}

#[tokio::test]
async fn get_survives_servers_that_refuse_die_and_hang() {
    let (instancer, _servers, _) = troubled().await;
    let client = Client::new(instancer);
    let mut requests = JoinSet::new();
    for _ in 0..40 {
        requests.spawn(client.request(get()));
    }
    while let Some(joined) = requests.join_next().await {
        assert_eq!(joined.expect("no panic").expect("answered").status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn post_arrives_at_most_once() {
    let (instancer, _servers, received) = troubled().await;
    let client = Client::builder(instancer).per_try_timeout(Duration::from_millis(100)).build();
    let mut n_answered = 0;
    for n in 0..12 {
        let order = Request::post(format!("http://orders/{n}")).body(String::from("order"));
        let answered = client.request(order.expect("a valid request")).await;
        n_answered += usize::from(answered.is_ok());
    }
    let received = received.lock().expect("no panic");
    assert!(received.values().all(|&n| n == 1), "{received:?}");
    assert!(n_answered > 0 && n_answered < received.len(), "{n_answered} of {received:?}");
}

#[tokio::test]
async fn error_names_service_instance_and_attempts() {
    let servers = [server(Manner::Hangs, &Received::default()).await];
    let client = Client::builder(of(&servers))
        .per_try_timeout(Duration::from_millis(50))
        .retry(|policy| policy.max_attempts(2))
        .build();
    let error = client.request(get()).await.expect_err("hangs");
    assert_eq!(error.kind(), ClientErrorKind::Timeout);
    assert_eq!(error.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(error.service(), Some("orders"));
    assert_eq!(error.instance(), Some(servers[0].instance().id()));
    assert_eq!(error.attempts().len(), 2);
    let line = error.to_string();
    let instance = servers[0].instance().id().to_string();
    assert!(line.starts_with("orders: ") && line.contains(&instance), "{line}");
}

#[tokio::test]
async fn error_has_the_kind_of_its_cause() {
    let empty = Client::new(FixedInstancer::new([]));
    let error = empty.request(get()).await.expect_err("empty");
    assert_eq!(error.kind(), ClientErrorKind::NoInstances(NoInstancesReason::Empty));
    assert_eq!((error.status(), error.instance()), (StatusCode::SERVICE_UNAVAILABLE, None));

    let servers = [server(Manner::Dies, &Received::default()).await];
    let client = Client::new(of(&servers));
    let error = client.request(get()).await.expect_err("dies");
    assert_eq!((error.kind(), error.attempts().len()), (ClientErrorKind::Failed, 3));
    let secured = Request::get("https://orders/").body(String::new()).expect("a valid request");
    let error = client.request(secured).await.expect_err("in the clear");
    assert_eq!((error.kind(), error.attempts().len()), (ClientErrorKind::Request, 1));
}

#[tokio::test]
async fn body_of_any_type_is_sent() {
    let server = Server::start(async |mut peer| {
        while let Some(head) = peer.head().await {
            let mut body = Vec::new();
            if head.contains("chunked") {
                peer.chunks(|chunk| body.extend_from_slice(chunk)).await;
            }
            let length = body.len();
            peer.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")).await;
            peer.write_bytes(&body).await;
        }
    })
    .await;
    let client = Client::new(FixedInstancer::new([server.instance()]));
    let order = |body| Request::put(URI).body(body).expect("a valid request");
    let frames = ["or", "der"].map(|part| Ok::<_, io::Error>(Frame::data(part.as_bytes())));
    let frames: UnsyncBoxBody<&[u8], io::Error> =
        StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    let response = client.request(order(frames)).await.expect("answered");
    let served = response.extensions().get::<Served>().expect("served").clone();
    assert_eq!((served.attempts(), text(response).await.chunk()), (1, &b"order"[..]));
    let empty = client.clone().oneshot(get().map(|_| Empty::<Bytes>::new())).await;
    assert!(text(empty.expect("answered")).await.is_empty());
}

#[test]
fn whole_body_is_repeatable_and_stream_up_to_64_kib() {
    let large = vec![7; 100 * 1024];
    let full = RequestBody::new(Full::new(Bytes::from(large.clone())));
    assert!(full.repeat().is_some());
    assert!(RequestBody::new(String::from_utf8(large.clone()).expect("ASCII")).repeat().is_some());
    assert!(RequestBody::new(Empty::<Bytes>::new()).repeat().is_some());
    assert!(RequestBody::new(RequestBody::from(large.clone())).repeat().is_some());
    let streamed = |data: Vec<u8>| RequestBody::new(Full::new(Bytes::from(data)).boxed_unsync());
    assert!(streamed(vec![7; 100]).repeat().is_some());
    assert!(streamed(large).repeat().is_none());
}

#[tokio::test]
async fn layers_around_and_below_keep_the_type() {
    let servers = [server(Manner::Answers, &Received::default()).await];
    let client: Client = Client::builder(of(&servers))
        .factory(|factory| factory.layer(TimeoutLayer::new(Duration::from_secs(5))))
        .build()
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(TimeoutLayer::new(Duration::from_secs(5)));
    for _ in 0..3 {
        let response = client.request(get()).await.expect("answered");
        assert_eq!(text(response).await, "ok");
    }
    client.wait_until_ready(Duration::from_secs(1)).await.expect("ready");
    assert_eq!(client.report().endpoints.len(), 1);
}

#[tokio::test]
async fn layer_keeps_the_error_of_the_client_below() {
    let client = Client::new(FixedInstancer::new([])).layer(ConcurrencyLimitLayer::new(1));
    let error = client.request(get()).await.expect_err("empty");
    assert_eq!(error.kind(), ClientErrorKind::NoInstances(NoInstancesReason::Empty));
    assert_eq!(error.to_string().matches("orders").count(), 1, "{error}");
}

#[tokio::test]
async fn only_methods_of_the_protocol_are_repeated() {
    for (method, n_attempts) in [(Method::GET, 3), (Method::PUT, 1)] {
        let servers = [server(Manner::Dies, &Received::default()).await];
        let client = Client::builder(of(&servers))
            .retry(|policy| policy.protocol(HttpProtocol::new().methods([Method::GET])))
            .build();
        let request = Request::builder().method(method).uri(URI).body(String::new());
        let error = client.request(request.expect("a valid request")).await.expect_err("dies");
        assert_eq!(error.attempts().len(), n_attempts);
    }
}

#[tokio::test]
async fn timeout_bounds_the_head_and_not_the_body() {
    let server = Server::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsl").await;
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            peer.write("ow").await;
        }
    })
    .await;
    let servers = [server];
    let client = Client::builder(of(&servers)).timeout(Duration::from_secs(1)).build();
    assert_eq!(text(client.request(get()).await.expect("a head")).await, "slow");
}

#[tokio::test]
async fn each_attempt_sends_what_is_left() {
    let told = Arc::<Mutex<Vec<u64>>>::default();
    let heard = Arc::clone(&told);
    let servers = [Server::start(move |mut peer| {
        let heard = Arc::clone(&heard);
        async move {
            while let Some(head) = peer.request().await {
                let name = "x-envoy-expected-rq-timeout-ms: ";
                let line = head.lines().find_map(|line| line.strip_prefix(name));
                let left = line.expect("a deadline").parse().expect("milliseconds");
                let n_before = heard.lock().expect("no panic").len();
                heard.lock().expect("no panic").push(left);
                tokio::time::sleep(Duration::from_millis(100)).await;
                if n_before == 0 {
                    return;
                }
                peer.write(OK).await;
            }
        }
    })
    .await];
    let timeout = Duration::from_secs(20);
    let client = Client::builder(of(&servers)).timeout(timeout).per_try_timeout(timeout).build();
    assert_eq!(client.request(get()).await.expect("answered").status(), StatusCode::OK);
    let told = told.lock().expect("no panic");
    assert!(
        matches!(told[..], [first, second] if first <= 20_000 && second + 100 <= first),
        "{told:?}"
    );
}

/// Only what may be repeated is sent to a second instance, and the first one's request is dropped.
#[tokio::test]
async fn hedge_answers_for_an_instance_that_hangs() {
    let (hanging, answering) = (Received::default(), Received::default());
    let servers =
        [server(Manner::Hangs, &hanging).await, server(Manner::Answers, &answering).await];
    let client = Client::builder(of(&servers))
        .balancer(RoundRobin::new())
        .timeout(Duration::from_secs(5))
        .hedge(HedgePolicy::after(Duration::from_millis(20)))
        .build();
    for _ in 0..6 {
        let response = client.request(get()).await.expect("answered");
        let served = response.extensions().get::<Served>().expect("served").clone();
        assert_eq!(served.instance(), servers[1].instance().id());
        assert_eq!(text(response).await, "ok");
    }
    let outcomes = client.report().endpoints.into_iter().map(|it| (it.instance, it.outcomes));
    let outcomes: HashMap<_, _> = outcomes.map(|(it, outcomes)| (it.port(), outcomes)).collect();
    let hedged = outcomes[&servers[0].instance().port()];
    assert!(hedged.cancelled > 0 && hedged.timed_out == 0, "{hedged:?}");
    let order = |n| Request::post(format!("http://orders/{n}")).body(String::from("order"));
    let client = Client::builder(of(&servers))
        .timeout(Duration::from_millis(300))
        .hedge(HedgePolicy::after(Duration::from_millis(20)))
        .build();
    for n in 0..4 {
        drop(client.request(order(n).expect("a valid request")).await);
    }
    let (hanging, answering) = (hanging.lock().expect("whole"), answering.lock().expect("whole"));
    for n in 0..4 {
        let n_received =
            |received: &HashMap<String, usize>| received.get(&format!("/{n}")).copied();
        let all = n_received(&hanging).into_iter().chain(n_received(&answering)).sum::<usize>();
        assert_eq!(all, 1, "order {n}");
    }
}

/// A request counts until its body has ended.
#[tokio::test]
async fn request_above_the_limit_is_not_sent() {
    let received = Received::default();
    let servers = [server(Manner::Answers, &received).await];
    let client = Client::builder(of(&servers))
        .endpointer(EndpointerConfig::new().limits(Limits::new().max_requests(1)))
        .build();
    let first = client.request(get()).await.expect("answered");
    let error = client.request(get()).await.expect_err("one is in flight");
    assert_eq!(error.kind(), ClientErrorKind::Overloaded, "{error}");
    assert_eq!((error.status(), error.attempts().len()), (StatusCode::SERVICE_UNAVAILABLE, 1));
    let refused = async {
        let mut times = Vec::new();
        for _ in 0..1_000 {
            let begun = Instant::now();
            client.request(get()).await.expect_err("one is in flight");
            times.push(begun.elapsed());
            yield_now().await;
        }
        times
    };
    let (mut times, stall) = with_stall(refused).await;
    times.sort();
    assert!(times[990] <= Duration::from_millis(1) + stall, "{:?}, {stall:?}", times[990]);
    assert_eq!(text(first).await, "ok");
    assert_eq!(text(client.request(get()).await.expect("answered")).await, "ok");
    assert_eq!(received.lock().expect("whole")["/a"], 2);
    let limits = client.report().limits;
    assert_eq!((limits.requests, limits.refused_requests), (0, 1_001));
}

#[tokio::test]
async fn error_names_the_service_without_its_user() {
    let client = Client::new(FixedInstancer::new([dead()]));
    let request = Request::get("http://user:s3cr3t@orders/a").body(String::new());
    let error = client.request(request.expect("a request")).await.expect_err("refused");
    assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error:?}");
    assert!(error.to_string().contains("orders"), "{error}");
}

#[tokio::test]
async fn scope_of_a_call_reaches_a_layered_client_too() {
    let received = Received::default();
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(server(Manner::Answers, &received).await);
    }
    let client = Client::builder(of(&servers)).balancer(Maglev::new()).build();
    for client in [client.clone(), client.layer(Identity::new())] {
        let mut served = HashSet::new();
        for _ in 0..20 {
            let scope = RequestScope::new().with_key(7);
            let response = scope.enter(|| client.request(get())).await.expect("answers");
            let by = response.extensions().get::<Served>().expect("present").instance().clone();
            served.insert(by);
            text(response).await;
        }
        assert_eq!(served.len(), 1, "{served:?}");
    }
}
