//! Which statuses are repeated, and which count against an instance.

use http::uri::PathAndQuery;
use tonic::{Code, Request, Status, client::Grpc, metadata::MetadataMap};
use tonic_prost::ProstCodec;
use tower_sd_balance::{EndpointReport, RetryPolicy};
use tower_sd_tonic::GrpcLayer;

use crate::{
    Endpoints, Message, Retried, balanced, endpointer, message, retried, server::Server, stack,
};

async fn call(endpointer: &Endpoints, policy: RetryPolicy) -> Result<Message, Status> {
    let answer = retried(endpointer, policy).one(message("hello")).await?;
    Ok(answer.into_inner())
}

fn only(endpointer: &Endpoints) -> EndpointReport {
    let mut report = endpointer.report();
    assert_eq!(report.endpoints.len(), 1);
    report.endpoints.remove(0)
}

#[tokio::test]
async fn unavailable_is_repeated_when_declared_idempotent() {
    let server = Server::start_failing(Status::unavailable("busy"));
    let endpointer = endpointer([server.instance()]);
    let failed = call(&endpointer, RetryPolicy::new()).await.expect_err("busy");
    assert_eq!((failed.code(), failed.message()), (Code::Unavailable, "busy"));
    assert_eq!(server.echo.seen().len(), 1, "it may have acted on it");

    let failed = call(&endpointer, RetryPolicy::new().idempotent()).await.expect_err("busy");
    // The last answer is the caller's, as it came.
    assert_eq!((failed.code(), failed.message()), (Code::Unavailable, "busy"));
    assert_eq!(server.echo.seen().len(), 1 + 3);
}

#[tokio::test]
async fn callers_own_mistake_is_not_repeated() {
    for code in [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition, Code::Internal] {
        let server = Server::start_failing(Status::new(code, "yours"));
        let endpointer = endpointer([server.instance()]);
        let failed = call(&endpointer, RetryPolicy::new().idempotent()).await;
        assert_eq!(failed.expect_err("refused").code(), code);
        assert_eq!(server.echo.seen().len(), 1);
    }
}

#[tokio::test]
async fn server_may_forbid_a_second_try_and_may_delay_it() {
    for (pushback, n_tries) in [("-1", 1), ("never", 1), ("60000", 1), ("150", 3)] {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-retry-pushback-ms", pushback.parse().expect("a value"));
        let status = Status::with_metadata(Code::Unavailable, "busy", metadata);
        let server = Server::start_failing(status);
        let endpointer = endpointer([server.instance()]);
        let started = tokio::time::Instant::now();
        // Without pushback the pauses would be of no length.
        let policy =
            RetryPolicy::new().idempotent().backoff(Default::default(), Default::default());
        call(&endpointer, policy).await.expect_err("busy");
        assert_eq!(server.echo.seen().len(), n_tries, "{pushback}");
        assert_eq!(started.elapsed().as_millis() >= 300, n_tries == 3, "{:?}", started.elapsed());
    }
}

/// `Repeat` fails after its headers, and so do the unary methods of some servers.
async fn status_in_trailers(mut client: Grpc<Retried>) -> Result<Message, Status> {
    client.ready().await?;
    let path = PathAndQuery::from_static("/echo.Echo/Repeat");
    let request = Request::new(message("fail immediately"));
    let codec = ProstCodec::<Message, Message>::default();
    Ok(client.unary(request, path, codec).await?.into_inner())
}

#[tokio::test]
async fn status_in_trailers_counts_for_unary_methods() {
    let failing = Server::start_failing(Status::unavailable("busy"));
    let good = Server::start();
    let endpointer = endpointer([failing.instance(), good.instance()]);
    let layer = GrpcLayer::new().idempotent(["echo.Echo/Repeat"]);
    let client = Grpc::new(stack(&endpointer, layer, RetryPolicy::new()));
    for _ in 0..10 {
        status_in_trailers(client.clone()).await.expect("the other one answers");
    }
    assert!(!failing.echo.seen().is_empty());
    assert_eq!(good.echo.seen().len(), 10);

    // Of a method of unknown kind the answer is the caller's with its headers.
    let policy = RetryPolicy::new().idempotent();
    let client = Grpc::new(stack(&endpointer, GrpcLayer::new(), policy));
    let mut failures = 0;
    for _ in 0..4 {
        failures += usize::from(status_in_trailers(client.clone()).await.is_err());
    }
    assert_eq!(failures, 2);
}

#[tokio::test]
async fn statuses_of_the_server_count_and_those_of_the_caller_do_not() {
    let server = Server::start();
    let endpointer = endpointer([server.instance()]);
    let mut client = balanced(&endpointer);
    let mut expected = 0;
    for (code, counts) in [
        (Code::Unavailable, 1),
        (Code::Internal, 1),
        (Code::Unknown, 1),
        (Code::InvalidArgument, 0),
        (Code::NotFound, 0),
        (Code::ResourceExhausted, 0),
        (Code::Unimplemented, 0),
    ] {
        server.echo.fail_with(Some(Status::new(code, "as scripted")));
        client.one(message("hello")).await.expect_err("as scripted");
        expected += counts;
        assert_eq!(only(&endpointer).failures, expected, "{code:?}");
    }

    // In trailers, after a message.
    let mut stream = client.repeat(message("fail")).await.expect("a stream").into_inner();
    assert!(stream.message().await.expect("the first").is_some());
    assert_eq!(only(&endpointer).failures, expected);
    stream.message().await.expect_err("as scripted");
    assert_eq!(only(&endpointer).failures, expected + 1);
}
