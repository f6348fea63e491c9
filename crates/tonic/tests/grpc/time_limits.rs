//! The retry's deadline bounds a call to the end of its stream.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::{
    task::JoinSet,
    time::{Instant, advance, pause, resume, timeout},
};
use tonic::{Code, Request};
use tower_sd_balance::{CallerDeadline, EndpointState, FixedInstancer, RetryPolicy, Served};
use tower_sd_http::DeadlineLayer;
use tower_sd_testkit::{load::paced, loopback::BlackHole};
use tower_sd_tonic::Channel;

use crate::{
    Retried, echo::echo_client::EchoClient, endpointer, failures::dead, message, retried,
    server::Server,
};

const BOUND: Duration = Duration::from_secs(20);

#[tokio::test]
async fn deadline_of_the_retry_bounds_a_stream_that_stalls() {
    let server = Server::start();
    let endpointer = endpointer([server.instance()]);
    let bound = Duration::from_secs(5);
    let mut client = retried(&endpointer, RetryPolicy::new().timeout(bound));
    let begun = Instant::now();
    let mut stream = client.repeat(message("open")).await.expect("begins").into_inner();
    assert_eq!(stream.message().await.expect("in time").expect("one").text, "1");
    pause();
    let end = timeout(Duration::from_secs(20), stream.message()).await.expect("in time");
    assert_eq!(end.expect_err("stalled").code(), Code::DeadlineExceeded);
    let late = begun.elapsed().saturating_sub(bound);
    assert!(begun.elapsed() >= bound && late <= Duration::from_millis(20), "{late:?}");
    resume();
    let outcomes = endpointer.report().endpoints[0].outcomes;
    assert_eq!((outcomes.timed_out, outcomes.success), (1, 0));
}

/// The deadline ends the stream, and the instance had a message ready each time.
#[tokio::test]
async fn slow_reader_of_a_ready_stream_is_no_timeout_of_the_instance() {
    let server = Server::start();
    let endpointer = endpointer([server.instance()]);
    let bound = Duration::from_secs(5);
    let mut client = retried(&endpointer, RetryPolicy::new().timeout(bound));
    let mut stream = client.repeat(message("100000")).await.expect("begins").into_inner();
    assert_eq!(stream.message().await.expect("in time").expect("one").text, "1");
    pause();
    advance(bound).await;
    resume();
    let mut last = Ok(None);
    for _ in 0..100_000 {
        last = stream.message().await;
        if last.is_err() {
            break;
        }
    }
    assert_eq!(last.expect_err("late").code(), Code::DeadlineExceeded);
    let endpoint = &endpointer.report().endpoints[0];
    let outcomes = (endpoint.outcomes.timed_out, endpoint.outcomes.cancelled, endpoint.in_flight);
    assert_eq!(outcomes, (0, 1, 0), "the stream is over before it is dropped");
}

/// Whichever bound ends the call: its own, that of one try, or that of all.
#[tokio::test]
async fn slow_sender_is_no_timeout_of_the_instance() {
    let (server, bound) = (Server::start(), Duration::from_millis(300));
    let once = RetryPolicy::new().max_attempts(1);
    for (n, policy) in [once.clone(), once.clone().per_try_timeout(bound), once.timeout(bound)]
        .into_iter()
        .enumerate()
    {
        let endpointer = endpointer([server.instance()]);
        let mut client = retried(&endpointer, policy);
        let messages = stream::iter([message("one")]).chain(stream::pending());
        let mut request = Request::new(messages);
        if n == 0 {
            request.set_timeout(bound);
        }
        client.collect(request).await.expect_err("late");
        let endpoint = &endpointer.report().endpoints[0];
        let counted = (endpoint.failures, endpoint.outcomes.cancelled, endpoint.in_flight);
        assert_eq!(counted, (0, 1, 0), "{n}");
    }
}

/// Neither by the timer of the endpoint nor by the status of a server that has the same deadline.
#[tokio::test]
async fn haste_of_the_caller_is_no_timeout_of_the_instance() {
    let plain = Server::start();
    let polite = Server::start_layered(DeadlineLayer::new());
    for server in [&plain, &polite] {
        let channel = Channel::new(FixedInstancer::new([server.instance()]));
        channel.wait_until_ready(Duration::from_secs(20)).await.expect("ready");
        let client = EchoClient::new(channel.clone());
        client.clone().one(message("hello")).await.expect("connected");
        let mut calls = JoinSet::new();
        for n in 0..50 {
            let (mut client, at) = (client.clone(), Instant::now() + Duration::from_secs(1));
            calls.spawn(CallerDeadline::new(at).scope(async move {
                match n % 2 {
                    0 => client.one(message("slow")).await.map(drop),
                    _ => {
                        let mut stream = client.repeat(message("open")).await?.into_inner();
                        while stream.message().await?.is_some() {}
                        Ok(())
                    }
                }
            }));
        }
        while let Some(outcome) = calls.join_next().await {
            let status = outcome.expect("no panic").expect_err("no time");
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        }
        let endpoint = &channel.report().endpoints[0];
        assert_eq!((endpoint.failures, endpoint.outcomes.timed_out), (0, 0));
        assert_eq!(endpoint.state, EndpointState::Ready);
        let cancelled = endpoint.outcomes.cancelled;
        assert!(cancelled > 0 && cancelled + 1 == endpoint.picks, "{:?}", endpoint.outcomes);
    }
}

/// Nothing was sent, so each instance is tried, and the call fails in one wait.
#[tokio::test]
async fn service_that_refuses_everywhere_fails_in_one_wait() {
    let endpointer = endpointer([dead(), dead(), dead()]);
    endpointer.ready(Duration::from_secs(20)).await.expect("endpoints");
    let policy = RetryPolicy::new().per_try_timeout(Duration::from_millis(300));
    let begun = Instant::now();
    let status = retried(&endpointer, policy).one(message("order")).await.expect_err("dead");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("none accepts a connection"), "{status}");
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    assert!(endpointer.report().endpoints.iter().all(|endpoint| endpoint.refusals > 0));
}

/// The retry ends the call by the deadline, and reports what it has waited for.
#[tokio::test]
async fn deadline_of_a_call_keeps_the_reason() {
    let endpointer = endpointer([dead(), dead(), dead()]);
    endpointer.ready(BOUND).await.expect("endpoints");
    let mut client = retried(&endpointer, RetryPolicy::new());
    let mut request = Request::new(message("order"));
    request.set_timeout(Duration::from_millis(300));
    let status = client.one(request).await.expect_err("dead");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("none accepts a connection"), "{status}");
}

#[tokio::test]
async fn deadline_after_an_attempt_names_it() {
    let server = Server::start();
    let endpointer = endpointer([server.instance()]);
    endpointer.ready(BOUND).await.expect("endpoints");
    let policy = RetryPolicy::new().idempotent().per_try_timeout(Duration::from_millis(100));
    let mut request = Request::new(message("slow"));
    request.set_timeout(Duration::from_millis(300));
    let status = retried(&endpointer, policy).one(request).await.expect_err("hangs");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let attempt = format!("attempt 1 at {}", server.address);
    assert!(status.message().contains(&attempt), "{status}");
}

/// Each attempt at it is a counted timeout, and no call meets it twice.
#[tokio::test]
async fn hanging_instance_of_three_costs_one_timeout_a_call() {
    let (hanging, one, two) = (Server::start(), Server::start(), Server::start());
    hanging.echo.hang();
    let endpointer = endpointer([hanging.instance(), one.instance(), two.instance()]);
    endpointer.ready(BOUND).await.expect("endpoints");
    let policy = RetryPolicy::new()
        .idempotent()
        .per_try_timeout(Duration::from_secs(2))
        .backoff(Duration::ZERO, Duration::ZERO);
    let client = retried(&endpointer, policy);
    for _ in 0..9 {
        let begun = Instant::now();
        let answer = client.clone().one(message("read")).await.expect("answers");
        // One try's time, and 50 ms on an idle machine.
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        let served: &Served = answer.extensions().get().expect("its instance");
        assert!(served.attempts() <= 2 && *served.instance() != *hanging.instance().id());
    }
    let report = endpointer.report().endpoints;
    let id = hanging.instance().id().clone();
    let hung = report.iter().find(|endpoint| *endpoint.instance.id() == id).expect("a member");
    assert!(hung.picks >= 1);
    assert_eq!((hung.outcomes.timed_out, hung.failures), (hung.picks, hung.picks));
    assert_eq!(report.iter().map(|endpoint| endpoint.outcomes.success).sum::<u64>(), 9);
}

/// 200 calls a second, 300 ms per try, one black hole of two: none fails.
#[tokio::test]
async fn no_call_fails_beside_a_black_hole() {
    let (server, hole) = (Server::start(), BlackHole::open().await.expect("loopback"));
    let endpointer = endpointer([hole.instance(), server.instance()]);
    let per_try = Duration::from_millis(300);
    let client = retried(&endpointer, RetryPolicy::new().per_try_timeout(per_try));
    let control = retried(&self::endpointer([server.instance()]), RetryPolicy::new());
    let mut n_dials = 0;
    let send = |client: &EchoClient<Retried>| {
        let mut client = client.clone();
        async move { client.one(message("order")).await.map(drop) }
    };
    let interval = Duration::from_millis(5);
    let calls = paced(600, interval, |i| {
        // Not each time: it reads the tables of all sockets.
        if i % 20 == 0 {
            n_dials = n_dials.max(hole.n_dials().expect("Linux"));
        }
        send(&client)
    });
    let (calls, controls) = tokio::join!(calls, paced(600, interval, |_| send(&control)));
    // Where the machine itself takes so long, tries time out.
    let is_fit = calls.errors.is_empty() || controls.slowest() > per_try / 3;
    assert!(is_fit, "{:?}", calls.errors);
    let (p99, without) = (calls.p99_after(200), controls.p99_after(200));
    assert!(p99 <= Duration::from_millis(50) + without * 2, "{p99:?} {without:?}");
    assert!((1..=4).contains(&n_dials), "{n_dials}");
}
