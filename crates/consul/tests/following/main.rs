//! The instancer against a scripted agent.
//!
//! Its queries, and the result of every kind of answer.

mod beside;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tower_sd_consul::{Consul, ConsulConfig, Query};
use tower_sd_core::{
    ErrorKind, FollowConfig, Follower, Freshness, Instancer, LossGuard, LossPolicy, RegistryConfig,
    Snapshot, Subscription,
};
use tower_sd_testkit::script::{Received, Reply, Script};

/// A healthy entry at `10.0.0.<n>`.
fn entry(n: u8) -> String {
    let node = format!(r#"{{"Node":"n{n}","Address":"10.0.0.{n}"}}"#);
    let service = r#"{"ID":"web","Service":"web","Address":"","Port":80}"#;
    format!(r#"{{"Node":{node},"Service":{service},"Checks":[]}}"#)
}

fn listing(index: &str, instances: impl IntoIterator<Item = u8>) -> Reply {
    let entries: Vec<String> = instances.into_iter().map(entry).collect();
    let reply = Reply::new(200).body(format!("[{}]", entries.join(",")));
    reply.header("x-consul-index", index)
}

fn follow(config: ConsulConfig, query: Query) -> Follower {
    let loss = LossPolicy::Accept;
    let mut follow = FollowConfig::default();
    follow.initial_backoff = Duration::from_millis(20);
    follow.max_backoff = Duration::from_millis(50);
    follow.denied_interval = Duration::from_millis(50);
    let config = config.registry(RegistryConfig::default().loss(loss).follow(follow));
    Consul::new(config).expect("an address").instancer(query)
}

fn agent(script: &Script) -> ConsulConfig {
    ConsulConfig::new(script.url())
}

async fn shows(
    subscription: &mut Subscription,
    what: &str,
    is: impl Fn(&Snapshot) -> bool + Send + Sync,
) -> Snapshot {
    let seen = async {
        let mut snapshot = subscription.snapshot();
        while !is(&snapshot) {
            snapshot = subscription.changed().await.expect("the loop lives");
        }
        snapshot
    };
    let Ok(snapshot) = timeout(BOUND, seen).await else {
        panic!("not seen: {what}; last seen: {:?}", subscription.snapshot());
    };
    snapshot
}

fn n_fresh(n: usize) -> impl Fn(&Snapshot) -> bool {
    move |snapshot| snapshot.instances().len() == n && snapshot.freshness().is_fresh()
}

fn is_stale(snapshot: &Snapshot) -> bool {
    matches!(snapshot.freshness(), Freshness::Stale { .. })
}

async fn next(script: &Script) -> Received {
    timeout(BOUND, script.next()).await.expect("a query")
}

fn has_index(request: &Received) -> bool {
    request.target.contains("index=")
}

/// With every tag.
#[tokio::test]
async fn first_query_has_no_index_and_the_next_waits_for_its_result() {
    let script = Script::start().await.expect("loopback");
    let query = Query::new("a/b c").tag("x").tag("y").passing();
    let instancer = follow(agent(&script).datacenter("eu"), query);
    let first = next(&script).await;
    let expected = "/v1/health/service/a%2Fb%20c?dc=eu&tag=x&tag=y";
    assert_eq!(first.target, expected);
    script.reply(listing("42", [1]));
    let second = next(&script).await;
    assert!(second.target.starts_with(&format!("{expected}&index=42&wait=")), "{}", second.target);
    let wait = second.target.rsplit_once('=').expect("wait").1.trim_end_matches("ms");
    let wait: u64 = wait.parse().expect("milliseconds");
    assert!((49_500..=55_000).contains(&wait), "{wait}");
    instancer.close().await;
}

/// A 500 carries `X-Consul-Index: 1`, which is ignored. After an error nothing is waited for, so a
/// server that was reset is noticed at the first retry.
#[tokio::test]
async fn set_is_kept_after_an_error_and_the_index_dropped() {
    let script = Script::start().await.expect("loopback");
    let instancer = follow(agent(&script), Query::new("web"));
    let mut subscription = instancer.subscribe();
    script.reply(listing("42", [1, 2]));
    let no_leader = Reply::new(500).header("x-consul-index", "1").body("No cluster leader");
    script.reply(no_leader);
    let snapshot = shows(&mut subscription, "stale", is_stale).await;
    assert_eq!(snapshot.instances().len(), 2);
    let error = snapshot.freshness().error().expect("stale");
    assert!(error.to_string().contains("No cluster leader"), "{error}");
    let asked = [next(&script).await, next(&script).await, next(&script).await];
    assert_eq!(asked.each_ref().map(has_index), [false, true, false]);
    script.reply(listing("1", [1, 2]));
    shows(&mut subscription, "fresh again", n_fresh(2)).await;
}

/// Go-kit dropped such an answer, and lost what it listed.
#[tokio::test]
async fn service_whose_index_went_back_is_read_anew() {
    let script = Script::start().await.expect("loopback");
    let instancer = follow(agent(&script), Query::new("web"));
    let mut subscription = instancer.subscribe();
    script.reply(listing("100", [1]));
    script.reply(listing("9", [1]));
    script.reply(listing("9", [1, 2]));
    shows(&mut subscription, "the new one", n_fresh(2)).await;
    script.reply(listing("10", [1, 2, 3]));
    shows(&mut subscription, "the newest", n_fresh(3)).await;
    let asked =
        [next(&script).await, next(&script).await, next(&script).await, next(&script).await];
    assert_eq!(asked.each_ref().map(has_index), [false, true, false, true]);
}

/// No index to wait for is no reason to query without pause.
#[tokio::test]
async fn queries_without_an_index_come_every_few_seconds() {
    for index in ["0", "", "garbage", "99999999999999999999"] {
        let script = Script::start().await.expect("loopback");
        let instancer = follow(agent(&script), Query::new("web"));
        script.reply(listing(index, [1]));
        script.reply(listing(index, [1, 2]));
        shows(&mut instancer.subscribe(), "the first", n_fresh(1)).await;
        sleep(Duration::from_millis(300)).await;
        assert_eq!(script.received().len(), 1, "{index:?}");
    }
}

/// Go-kit polls such an agent without pause.
#[tokio::test]
async fn queries_that_return_immediately_are_rate_limited() {
    let mut index = 10;
    let script = Script::answering(move |_| {
        index += 1;
        listing(&index.to_string(), [1])
    });
    let script = script.await.expect("loopback");
    let instancer = follow(agent(&script), Query::new("web"));
    sleep(Duration::from_secs(1)).await;
    instancer.close().await;
    let n = script.received().len();
    assert!((5..=13).contains(&n), "{n} queries in a second");
}

#[tokio::test]
async fn answer_that_is_too_long_is_an_error_and_the_set_is_kept() {
    let script = Script::start().await.expect("loopback");
    let instancer = follow(agent(&script).max_body(10_000), Query::new("web"));
    let mut subscription = instancer.subscribe();
    script.reply(listing("42", [1]));
    script.reply(listing("43", 1..=200));
    let snapshot = shows(&mut subscription, "stale", is_stale).await;
    assert_eq!(snapshot.instances().len(), 1);
    let error = snapshot.freshness().error().expect("stale").to_string();
    assert!(error.contains("max_body"), "{error}");
}

#[tokio::test]
async fn cut_garbled_or_missing_answers_are_errors_without_an_end() {
    let script = Script::start().await.expect("loopback");
    let instancer = follow(agent(&script), Query::new("web"));
    let mut subscription = instancer.subscribe();
    script.reply(listing("42", [1]));
    // go-kit's `TestInstancerWithEOF` (#788).
    let bad = [
        Reply::closed(),
        Reply::new(200).header("content-length", "100").chunk("[{").cut(),
        Reply::new(200).body("<html>"),
        Reply::new(200).body(r#"{"an":"object"}"#),
        Reply::new(302).header("location", "http://127.0.0.1:1/"),
    ];
    for reply in bad {
        script.reply(reply);
        let snapshot = shows(&mut subscription, "stale", is_stale).await;
        assert_eq!(snapshot.instances().len(), 1);
        script.reply(listing("42", [1]));
        shows(&mut subscription, "fresh", n_fresh(1)).await;
    }
}

#[tokio::test]
async fn agent_that_limits_is_queried_again_after_a_pause() {
    for status in [429, 503] {
        let script = Script::start().await.expect("loopback");
        let instancer = follow(agent(&script), Query::new("web"));
        let mut subscription = instancer.subscribe();
        script.reply(listing("42", [1]));
        script.reply(Reply::new(status).body("rate limit exceeded"));
        let snapshot = shows(&mut subscription, "stale", is_stale).await;
        let error = snapshot.freshness().error().expect("stale");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_transient());
        script.reply(listing("42", [1]));
        shows(&mut subscription, "fresh", n_fresh(1)).await;
    }
}

/// In a header, and nowhere else.
#[tokio::test]
async fn token_is_sent_in_a_header_and_is_in_no_error() {
    let script = Script::start().await.expect("loopback");
    let config = agent(&script).token("s3cr3t").basic_auth("user", "passw0rd");
    let instancer = follow(config, Query::new("web"));
    let mut subscription = instancer.subscribe();
    let request = next(&script).await;
    assert_eq!(request.headers["x-consul-token"], "s3cr3t");
    assert!(request.headers["authorization"].to_str().expect("text").starts_with("Basic "));
    assert!(!request.target.contains("s3cr3t"));
    script.reply(Reply::new(403).body("no such token: s3cr3t"));
    let never = |snapshot: &Snapshot| snapshot.freshness().error().is_some();
    let snapshot = shows(&mut subscription, "denied", never).await;
    let text = format!("{snapshot:?} {instancer:?}");
    assert!(text.contains("no such token: ***"), "{text}");
    assert!(!text.contains("s3cr3t") && !text.contains("passw0rd"), "{text}");
}

#[tokio::test]
async fn token_file_is_read_again_when_the_agent_denies() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "old\n").expect("our folder");
    let script = Script::answering(|request| match request.headers["x-consul-token"].to_str() {
        Ok("new") => listing("42", [1]).after(Duration::from_millis(5)),
        _ => Reply::new(403).body("ACL not found"),
    });
    let script = script.await.expect("loopback");
    let instancer = follow(agent(&script).token_file(&file), Query::new("web"));
    let mut subscription = instancer.subscribe();
    let denied = |snapshot: &Snapshot| snapshot.freshness().error().is_some();
    let snapshot = shows(&mut subscription, "denied", denied).await;
    let error = snapshot.freshness().error().expect("denied");
    assert_eq!(error.kind(), ErrorKind::Denied);
    sleep(Duration::from_millis(300)).await;
    let n = script.received().len();
    assert!(n < 12, "{n} denied queries in 300 ms with a pause of 50 ms");
    std::fs::write(&file, "new\n").expect("our folder");
    shows(&mut subscription, "allowed", n_fresh(1)).await;
}

#[tokio::test]
async fn filtered_answer_keeps_the_set_and_is_a_denial() {
    let script = Script::start().await.expect("loopback");
    let instancer = follow(agent(&script), Query::new("web"));
    let mut subscription = instancer.subscribe();
    script.reply(listing("42", [1, 2]));
    script.reply(listing("43", []).header("x-consul-results-filtered-by-acls", "true"));
    let snapshot = shows(&mut subscription, "stale", is_stale).await;
    assert_eq!(snapshot.instances().len(), 2);
    let error = snapshot.freshness().error().expect("stale");
    assert_eq!(error.kind(), ErrorKind::Denied);
}

/// What empties a set is confirmed by a consistent read, without index and without the agent's
/// cache.
#[tokio::test]
async fn loss_is_confirmed_by_the_strongest_read_there_is() {
    let script = Script::start().await.expect("loopback");
    let mut guard = LossGuard::default();
    (guard.hold, guard.hold_empty) = (Duration::from_millis(400), Duration::from_millis(400));
    let guarded = RegistryConfig::default().loss(LossPolicy::Guard(guard));
    let consul = Consul::new(agent(&script).registry(guarded)).expect("an address");
    let instancer = consul.instancer(Query::new("web"));
    let mut subscription = instancer.subscribe();
    script.reply(listing("42", [1, 2]));
    shows(&mut subscription, "both", n_fresh(2)).await;
    script.reply(listing("43", []));
    let held = |snapshot: &Snapshot| snapshot.held().len() == 2;
    shows(&mut subscription, "both held", held).await;
    let confirming = loop {
        let request = next(&script).await;
        if request.target.contains("consistent") {
            break request;
        }
    };
    assert!(!has_index(&confirming), "{}", confirming.target);
}

/// Newer agents answer blocking queries from a view that outlives its servers.
#[tokio::test]
async fn streaming_agents_word_is_checked_by_plain_reads() {
    let failing = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&failing);
    let script = Script::answering(move |request| match has_index(request) {
        // The view returns 200 indefinitely, after the wait.
        true => {
            let wait = request.target.rsplit_once("wait=").expect("a wait").1;
            let wait = wait.trim_end_matches("ms").parse().expect("milliseconds");
            let reply = listing("42", [1]).after(Duration::from_millis(wait));
            reply.header("x-consul-query-backend", "streaming")
        }
        false => match fails.load(Relaxed) {
            true => Reply::new(500).body("No cluster leader"),
            false => listing("42", [1]).header("x-consul-query-backend", "blocking-query"),
        },
    });
    let script = script.await.expect("loopback");
    let query = Query::new("web")
        .wait(Duration::from_millis(300))
        .consistency_check_interval(Duration::from_millis(700));
    let instancer = follow(agent(&script), query);
    let mut subscription = instancer.subscribe();
    shows(&mut subscription, "it", n_fresh(1)).await;
    sleep(Duration::from_millis(500)).await;
    failing.store(true, Relaxed);
    let failed_at = Instant::now();
    let snapshot = shows(&mut subscription, "stale", is_stale).await;
    assert!(failed_at.elapsed() < Duration::from_millis(1200), "{:?}", failed_at.elapsed());
    assert_eq!(snapshot.instances().len(), 1);
    failing.store(false, Relaxed);
    shows(&mut subscription, "fresh", n_fresh(1)).await;
}

/// With streaming, leader and last contact are constants.
#[tokio::test]
async fn streaming_agents_constant_headers_are_no_outage() {
    let script = Script::start().await.expect("loopback");
    let instancer = follow(agent(&script), Query::new("web"));
    let mut subscription = instancer.subscribe();
    let streaming = |reply: Reply| {
        let reply = reply.header("x-consul-query-backend", "streaming");
        reply.header("x-consul-knownleader", "false").header("x-consul-lastcontact", "0")
    };
    script.reply(listing("42", [1]));
    script.reply(streaming(listing("43", [1, 2])));
    shows(&mut subscription, "both", n_fresh(2)).await;
    // The same index, other content.
    script.reply(streaming(listing("43", [1, 2, 3])));
    shows(&mut subscription, "all three", n_fresh(3)).await;
}

/// A view that is behind what was read already is not accepted.
#[tokio::test]
async fn streamed_answer_with_a_lower_index_is_replaced_by_a_read() {
    let script = Script::start().await.expect("loopback");
    let instancer = follow(agent(&script), Query::new("web"));
    let mut subscription = instancer.subscribe();
    script.reply(listing("42", [1, 2]));
    script.reply(listing("40", [1]).header("x-consul-query-backend", "streaming"));
    script.reply(listing("42", [1, 2, 3]));
    shows(&mut subscription, "all three", n_fresh(3)).await;
    let asked = [next(&script).await, next(&script).await, next(&script).await];
    assert_eq!(asked.each_ref().map(has_index), [false, true, false]);
}

/// Go-kit left the query running for 5 min.
#[tokio::test]
async fn closing_during_a_long_wait_ends_the_query_immediately() {
    let script = Script::start().await.expect("loopback");
    let instancer = follow(agent(&script), Query::new("web"));
    script.reply(listing("42", [1]));
    shows(&mut instancer.subscribe(), "it", n_fresh(1)).await;
    next(&script).await;
    next(&script).await;
    let started = Instant::now();
    instancer.close().await;
    assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
    drop(instancer);
    while script.n_connections() > 0 {
        assert!(started.elapsed() < Duration::from_secs(2), "the connection is left open");
        sleep(Duration::from_millis(5)).await;
    }
}

const BOUND: Duration = Duration::from_secs(5);
