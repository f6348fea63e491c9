//! Every kind of call, and what has to survive a second try.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, timeout};
use tonic::{
    Code, Request, Status,
    client::GrpcService,
    transport::{self, Identity, ServerTlsConfig},
};
use tower::{Layer, ServiceBuilder};
use tower_sd_balance::{BalanceLayer, Endpointer, FixedInstancer, RetryPolicy, RoundRobin, Served};
use tower_sd_http::{HttpFactory, TlsClient, TlsConfig};
use tower_sd_tonic::{GrpcFactory, GrpcLayer, Idempotent};

use crate::{
    balanced, echo::echo_client::EchoClient, endpointer, message, retried, server::Server, stack,
};

/// Unary, client stream, server stream, both.
pub(crate) async fn every_kind<S>(mut client: EchoClient<S>)
where
    S: GrpcService<tonic::body::Body>,
    S::Error: Into<tower_sd_balance::BoxError>,
    S::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<tower_sd_balance::BoxError> + Send,
{
    let texts = ["a", "b", "c"];
    let messages = || stream::iter(texts.map(message));

    let one = client.one(message("hello")).await.expect("unary").into_inner();
    assert_eq!(one.text, "hello");

    let collected = client.collect(messages()).await.expect("client stream").into_inner();
    assert_eq!(collected.text, "abc");

    let repeated = client.repeat(message("1000")).await.expect("server stream").into_inner();
    let repeated: Vec<_> = repeated.try_collect().await.expect("to its end");
    assert_eq!(repeated.len(), 1000);

    let conversation = client.converse(messages()).await.expect("both").into_inner();
    let answers: Vec<_> =
        conversation.map_ok(|message| message.text).try_collect().await.expect("end");
    assert_eq!(answers, texts);
}

#[tokio::test]
async fn every_kind_of_call_goes_through_the_balancer() {
    let (a, b) = (Server::start(), Server::start());
    every_kind(balanced(&endpointer([a.instance(), b.instance()]))).await;
}

#[tokio::test]
async fn every_kind_of_call_goes_through_a_retry() {
    let (a, b) = (Server::start(), Server::start());
    let endpointer = endpointer([a.instance(), b.instance()]);
    every_kind(retried(&endpointer, RetryPolicy::new().idempotent())).await;
    // And with answers that are read ahead of the caller.
    let layer = GrpcLayer::new().idempotent(["echo.Echo/One", "echo.Echo/Collect"]);
    every_kind(EchoClient::new(stack(&endpointer, layer, RetryPolicy::new()))).await;
}

#[tokio::test]
async fn conversation_goes_back_and_forth() {
    let server = Server::start();
    let mut client = retried(&endpointer([server.instance()]), RetryPolicy::new());
    let (say, said) = tokio::sync::mpsc::channel(1);
    let said = tokio_stream::wrappers::ReceiverStream::new(said);
    let mut answers = client.converse(said).await.expect("a conversation").into_inner();
    for n in 0..10 {
        say.send(message(n.to_string())).await.expect("it listens");
        let answer = answers.message().await.expect("an answer").expect("not the end");
        assert_eq!(answer.text, n.to_string());
    }
    drop(say);
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn interceptor_may_stand_above() {
    let server = Server::start();
    let balance = BalanceLayer::new(RoundRobin::new()).layer(endpointer([server.instance()]));
    let sign = |mut request: Request<()>| {
        request.metadata_mut().insert("token", "t".parse().expect("a value"));
        Ok::<_, Status>(request)
    };
    let mut client = EchoClient::with_interceptor(balance, sign);
    client.one(message("hello")).await.expect("an answer");
    assert_eq!(server.echo.seen()[0].get("token").expect("signed"), "t");
}

#[tokio::test]
async fn metadata_and_deadline_survive_a_retry() {
    let failing = Server::start_failing(Status::unavailable("not me"));
    let good = Server::start();
    let endpointer = endpointer([failing.instance(), good.instance()]);
    let mut client = retried(&endpointer, RetryPolicy::new());
    for _ in 0..10 {
        let mut request = Request::new(message("hello"));
        request.metadata_mut().insert("number", "7".parse().expect("a value"));
        request.set_timeout(Duration::from_secs(5));
        request.extensions_mut().insert(Idempotent);
        let answer = client.one(request).await.expect("the other one answers");
        assert_eq!(answer.into_inner().text, "hello");
    }
    let (before, after) = (failing.echo.seen(), good.echo.seen());
    assert!(!before.is_empty() && after.len() == 10);
    for metadata in before.iter().chain(&after) {
        assert_eq!(metadata.get("number").expect("there"), "7");
        let left = metadata.get("grpc-timeout").expect("there").to_str().expect("ASCII");
        let left: u64 = left.strip_suffix('u').expect("microseconds").parse().expect("a number");
        // Each attempt carries the rest of it, not the whole.
        assert!((1..5_000_000).contains(&left), "{left}");
    }
}

#[tokio::test]
async fn answer_names_who_has_served_it() {
    let failing = Server::start_failing(Status::unavailable("not me"));
    let good = Server::start();
    let endpointer = endpointer([failing.instance(), good.instance()]);
    let client = retried(&endpointer, RetryPolicy::new().idempotent());
    let mut attempts = Vec::new();
    for _ in 0..10 {
        let answer = client.clone().one(message("hello")).await.expect("the other one answers");
        let served: &Served = answer.extensions().get().expect("its instance");
        assert_eq!(served.instance(), good.instance().id());
        attempts.push(served.attempts());
    }
    assert!(attempts.contains(&2) && attempts.iter().all(|n| *n <= 2), "{attempts:?}");
}

#[tokio::test]
async fn call_ends_with_its_deadline_and_is_not_repeated() {
    let server = Server::start();
    let policy = RetryPolicy::new().idempotent();
    let endpointer = endpointer([server.instance()]);
    let started = Instant::now();
    for through_retry in [false, true] {
        let mut request = Request::new(message("slow"));
        request.set_timeout(Duration::from_millis(200));
        let answer = match through_retry {
            false => balanced(&endpointer).one(request).await,
            true => retried(&endpointer, policy.clone()).one(request).await,
        };
        assert_eq!(answer.expect_err("late").code(), Code::DeadlineExceeded);
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(server.echo.seen().len() <= 2, "one of each");
}

#[tokio::test]
async fn stream_ends_with_its_deadline() {
    let server = Server::start();
    let mut client = balanced(&endpointer([server.instance()]));
    let mut request = Request::new(message("open"));
    request.set_timeout(Duration::from_millis(300));
    let mut stream = client.repeat(request).await.expect("a stream").into_inner();
    assert!(stream.message().await.expect("the first").is_some());
    let end = timeout(Duration::from_secs(5), stream.message()).await.expect("an end");
    assert_eq!(end.expect_err("late").code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn layer_alone_makes_statuses_of_errors() {
    let stack = ServiceBuilder::new()
        .layer(GrpcLayer::new())
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(endpointer([]));
    let status = EchoClient::new(stack).one(message("hello")).await.expect_err("no instance");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "no instances: the registry lists none");
}

#[tokio::test]
async fn calls_go_over_tls_to_the_name_of_the_service() {
    // tonic's server chooses no provider where several are compiled in, as by all features.
    let _other_test = rustls::crypto::ring::default_provider().install_default();
    let name = "echo.internal";
    let certified = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let identity = Identity::from_pem(&certificate, key);
    let tls = ServerTlsConfig::new().identity(identity);
    let builder = transport::Server::builder().tls_config(tls).expect("a configuration");
    let server = Server::start_on(builder, |_| {});
    let call = async |name: &str| {
        let tls = TlsConfig::new().with_root(certificate.clone()).with_server_name(name);
        let tls = TlsClient::new(tls).expect("an authority");
        let factory = GrpcFactory::over(HttpFactory::new().tls(tls));
        let instancer = FixedInstancer::new([server.instance()]);
        balanced(&Endpointer::new(&instancer, factory)).one(message("hello")).await
    };
    assert_eq!(call(name).await.expect("an answer").into_inner().text, "hello");
    let status = call("other.internal").await.expect_err("another's certificate");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("certificate"), "{}", status.message());
}

/// Its sender is silent, and does not learn of the end.
#[tokio::test]
async fn conversation_that_is_given_up_ends_at_the_server() {
    let builder = transport::Server::builder().max_concurrent_streams(1);
    let server = Server::start_on(builder, |_| {});
    let factory = GrpcFactory::over(HttpFactory::new().max_http2_connections(1));
    let instancer = FixedInstancer::new([server.instance()]);
    let mut client = balanced(&Endpointer::new(&instancer, factory));
    let mut request = Request::new(stream::pending());
    request.set_timeout(Duration::from_millis(300));
    let mut late = client.converse(request).await.expect("begins").into_inner();
    assert_eq!(late.message().await.expect_err("late").code(), Code::DeadlineExceeded);
    for _ in 0..3 {
        let begun = timeout(Duration::from_secs(20), client.converse(stream::pending())).await;
        drop(begun.expect("in time").expect("begins"));
    }
    let answer = timeout(Duration::from_secs(20), client.one(message("hello"))).await;
    assert_eq!(answer.expect("in time").expect("unary").into_inner().text, "hello");
    drop(late);
}
