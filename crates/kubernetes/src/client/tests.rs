//! The source on a scripted API server.

mod doubt;
mod shared;
mod watches;

use std::{fs, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;
use tower_sd_core::{
    ErrorKind, Instancer, LossPolicy, ReadMode, ReadRequest, ReadResult, RegistryConfig, Source,
};
use tower_sd_testkit::script::{Received, Reply, Script};

use super::*;
use crate::{Kubernetes, source::KubernetesSource};

fn slice(name: &str, version: u32, addresses: &[&str]) -> Value {
    slice_of("orders", name, version, addresses)
}

fn slice_of(service: &str, name: &str, version: u32, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> = addresses.iter().map(|it| json!({ "addresses": [it] })).collect();
    json!({
        "metadata": {
            "name": name,
            "resourceVersion": version.to_string(),
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "", "port": 80 }],
    })
}

fn list(version: u32, next: &str, items: &[Value]) -> Reply {
    let metadata = json!({ "resourceVersion": version.to_string(), "continue": next });
    Reply::new(200).body(json!({ "metadata": metadata, "items": items }).to_string())
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": kind, "object": object }))
}

fn bookmark() -> String {
    event("BOOKMARK", &json!({ "metadata": { "resourceVersion": "90" } }))
}

fn status(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "code": code, "reason": reason, "message": "as scripted" })
}

fn config(script: &Script) -> KubernetesConfig {
    KubernetesConfig::new(script.url()).namespace("shop").token("hunter2")
}

fn source(config: KubernetesConfig) -> KubernetesSource {
    let client = KubernetesClient::new(config).expect("it can work");
    KubernetesSource::new(client, "orders".into())
}

async fn read(source: &mut KubernetesSource, mode: ReadMode) -> Result<ReadResult> {
    source.read(ReadRequest::new(mode)).await
}

/// The instances of a read that must be a set.
async fn set(source: &mut KubernetesSource, mode: ReadMode) -> Vec<String> {
    let result = read(source, mode).await.expect("an answer");
    let entries = result.entries().unwrap_or_else(|| panic!("no set: {result:?}"));
    entries.iter().flatten().map(ToString::to_string).collect()
}

/// The text of a read that must be no set and no error.
async fn outcome(source: &mut KubernetesSource) -> String {
    format!("{:?}", read(source, ReadMode::Changed).await.expect("an answer"))
}

fn option(received: &Received, name: &str) -> Option<String> {
    let url = url::Url::parse(&format!("http://h{}", received.target)).expect("a target");
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn list_is_read_in_pages_and_the_watch_begins_behind_it() {
    let script = Script::start().await.expect("loopback");
    script.reply(list(7, "more", &[slice("a", 1, &["10.0.0.1"])]));
    script.reply(list(7, "", &[slice("b", 2, &["10.0.0.2"])]));
    script.reply(Reply::new(200).chunk(event("ADDED", &slice("c", 8, &["10.0.0.3"]))).hang());
    let mut source = source(config(&script));
    assert_eq!(set(&mut source, ReadMode::Full).await, ["10.0.0.1:80", "10.0.0.2:80"]);
    let first = script.next().await;
    let path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?";
    assert!(first.target.starts_with(path), "{}", first.target);
    let selector = Some("kubernetes.io/service-name=orders".to_owned());
    assert_eq!(option(&first, "labelSelector"), selector);
    assert_eq!((option(&first, "continue"), option(&first, "resourceVersion")), (None, None));
    assert_eq!(first.headers["authorization"], "Bearer hunter2");
    assert_eq!(option(&script.next().await, "continue").as_deref(), Some("more"));
    let found = set(&mut source, ReadMode::Changed).await;
    assert_eq!(found, ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    let watch = script.next().await;
    assert_eq!(option(&watch, "resourceVersion").as_deref(), Some("7"));
    assert_eq!(option(&watch, "allowWatchBookmarks").as_deref(), Some("true"));
    assert_eq!(option(&watch, "labelSelector"), selector);
}

#[tokio::test]
async fn page_that_has_expired_is_a_resync() {
    let script = Script::start().await.expect("loopback");
    script.reply(list(7, "more", &[slice("a", 1, &["10.0.0.1"])]));
    script.reply(Reply::new(410).body(status(410, "Expired").to_string()));
    let result = read(&mut source(config(&script)), ReadMode::Full).await.expect("no error");
    assert!(format!("{result:?}").contains("Resync"), "{result:?}");
}

#[tokio::test]
async fn expired_position_is_a_resync_in_both_forms() {
    let script = Script::start().await.expect("loopback");
    let mut source = source(config(&script));
    let gone = [
        Reply::new(410).body(status(410, "Gone").to_string()),
        Reply::new(200).chunk(event("ERROR", &status(410, "Expired"))),
    ];
    for reply in gone {
        script.reply(list(7, "", &[slice("a", 1, &["10.0.0.1"])]));
        set(&mut source, ReadMode::Full).await;
        script.reply(reply);
        let outcome = outcome(&mut source).await;
        assert!(outcome.contains("Resync"), "{outcome}");
    }
}

#[tokio::test]
async fn events_are_applied_and_bookmarks_move_the_position() {
    let script = Script::start().await.expect("loopback");
    script.reply(list(7, "", &[slice("a", 1, &["10.0.0.1"])]));
    let bookmark = json!({ "metadata": { "resourceVersion": "90" } });
    let first = Reply::new(200)
        .chunk(event("MODIFIED", &slice("a", 8, &["10.0.0.1", "10.0.0.2"])))
        .pause(Duration::from_millis(50))
        .chunk(event("BOOKMARK", &bookmark));
    script.reply(first);
    script.reply(Reply::new(200).chunk(event("DELETED", &slice("a", 91, &[]))).hang());
    let mut source = source(config(&script));
    set(&mut source, ReadMode::Full).await;
    assert_eq!(set(&mut source, ReadMode::Changed).await, ["10.0.0.1:80", "10.0.0.2:80"]);
    assert!(outcome(&mut source).await.contains("Unchanged"));
    assert!(set(&mut source, ReadMode::Changed).await.is_empty());
    let versions = script.received().into_iter().filter_map(|it| option(&it, "resourceVersion"));
    assert_eq!(versions.collect::<Vec<_>>(), ["7", "90"]);
}

#[tokio::test]
async fn rotated_token_is_read_after_a_refusal() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "old\n").expect("our file");
    let script = Script::start().await.expect("loopback");
    let mut source = source(config(&script).token_file(file.path()));
    script.reply(Reply::new(401).body(status(401, "Unauthorized").to_string()));
    let error = read(&mut source, ReadMode::Full).await.expect_err("the same token again");
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Denied, false));
    fs::write(file.path(), "new\n").expect("our file");
    script.reply(Reply::new(401));
    script.reply(list(7, "", &[slice("a", 1, &["10.0.0.1"])]));
    assert_eq!(set(&mut source, ReadMode::Full).await, ["10.0.0.1:80"]);
    fs::write(file.path(), "newest\n").expect("our file");
    script.reply(Reply::new(401));
    script.reply(Reply::new(200).chunk(event("ADDED", &slice("b", 8, &["10.0.0.2"]))).hang());
    assert_eq!(set(&mut source, ReadMode::Changed).await.len(), 2);
    let tokens = script.received();
    let tokens: Vec<_> = tokens.iter().map(|it| it.headers["authorization"].to_str()).collect();
    let expected = ["old", "old", "new", "new", "newest"].map(|it| format!("Bearer {it}"));
    assert_eq!(tokens.into_iter().flatten().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn denied_watch_keeps_the_set_and_lists_when_access_is_back() {
    let script = Script::start().await.expect("loopback");
    let mut source = source(config(&script));
    script.reply(list(7, "", &[slice("a", 1, &["10.0.0.1"])]));
    set(&mut source, ReadMode::Full).await;
    script.reply(Reply::new(403).body(status(403, "Forbidden").to_string()));
    let denied = outcome(&mut source).await;
    assert!(denied.contains("Trouble") && denied.contains("the verb watch"), "{denied}");
    script.reply(list(9, "", &[slice("a", 9, &["10.0.0.2"])]));
    assert_eq!(set(&mut source, ReadMode::Changed).await, ["10.0.0.2:80"]);
}

#[tokio::test]
async fn watch_that_breaks_off_is_followed_by_a_list() {
    let script = Script::start().await.expect("loopback");
    let mut source = source(config(&script));
    script.reply(list(70, "", &[slice("a", 1, &["10.0.0.1"])]));
    set(&mut source, ReadMode::Full).await;
    let whole = event("MODIFIED", &slice("a", 71, &["10.0.0.2"]));
    script.reply(Reply::new(200).chunk(whole[..whole.len() / 2].to_owned()).cut());
    // Restored from a backup: its versions are older.
    script.reply(list(8, "", &[slice("a", 8, &["10.0.0.3"])]));
    assert_eq!(set(&mut source, ReadMode::Changed).await, ["10.0.0.3:80"]);
    script.reply(Reply::new(200).chunk(event("MODIFIED", &slice("a", 9, &["10.0.0.4"]))).hang());
    assert_eq!(set(&mut source, ReadMode::Changed).await, ["10.0.0.4:80"]);
    let versions = script.received().into_iter().filter_map(|it| option(&it, "resourceVersion"));
    assert_eq!(versions.collect::<Vec<_>>(), ["70", "8"]);
}

#[tokio::test]
async fn events_that_have_arrived_are_one_change() {
    let script = Script::start().await.expect("loopback");
    let mut source = source(config(&script));
    script.reply(list(7, "", &[]));
    set(&mut source, ReadMode::Full).await;
    let mut reply = Reply::new(200);
    for n in 1..=20 {
        let event = event("MODIFIED", &slice("a", 7 + n, &[&format!("10.0.0.{n}")]));
        reply = reply.chunk(event);
    }
    script.reply(reply.hang());
    let mut n_sets = 0;
    while set(&mut source, ReadMode::Changed).await != ["10.0.0.20:80"] {
        n_sets += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(n_sets < 10, "{n_sets} changes");
}

#[tokio::test]
async fn garbage_and_large_objects_are_trouble_that_a_list_ends() {
    let script = Script::start().await.expect("loopback");
    let mut source = source(config(&script));
    let large = vec![b'x'; 17_000_000];
    script.reply(list(7, "", &[]));
    set(&mut source, ReadMode::Full).await;
    for (bytes, part) in [
        (b"{\"type\": 1}\n".to_vec(), "not as an API server writes it"),
        (b"<html>\n".to_vec(), "not as an API server writes it"),
        (large, "an event is longer than"),
    ] {
        script.reply(Reply::new(200).chunk(bytes).hang());
        let trouble = outcome(&mut source).await;
        assert!(trouble.contains("Trouble") && trouble.contains(part), "{trouble}");
        script.reply(list(7, "", &[slice("a", 1, &["10.0.0.1"])]));
        assert_eq!(set(&mut source, ReadMode::Changed).await, ["10.0.0.1:80"]);
    }
}

#[tokio::test]
async fn large_object_of_a_list_is_an_error_and_pages_shrink_before() {
    let script = Script::start().await.expect("loopback");
    let mut source = source(config(&script).max_object(12_000));
    let items = |n: usize| {
        let one = slice("a", 1, &["10.0.0.1"; 400]);
        list(7, "", &vec![one; n])
    };
    // 11 KB each, where 256 of 12 KB are accepted.
    script.reply(items(300));
    script.reply(items(1));
    assert_eq!(set(&mut source, ReadMode::Full).await.len(), 1, "one address");
    let limits = |script: &Script| -> Vec<_> {
        script.received().iter().filter_map(|it| option(it, "limit")).collect()
    };
    assert_eq!(limits(&script), ["256", "64"]);
    let large = bytes::Bytes::from(vec![b' '; 17_000_000]);
    for _ in 0..5 {
        script.reply(Reply::new(200).body(large.clone()));
    }
    let error = read(&mut source, ReadMode::Full).await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(limits(&script)[2..], ["256", "64", "16", "4", "1"]);
}

#[tokio::test]
async fn malformed_slice_leaves_the_others_alone() {
    let script = Script::start().await.expect("loopback");
    let mut source = source(config(&script));
    let mut malformed = slice("b", 1, &[]);
    malformed["endpoints"] = 5.into();
    script.reply(list(7, "", &[slice("a", 1, &["10.0.0.1"]), malformed]));
    let result = read(&mut source, ReadMode::Full).await.expect("a set");
    let entries = result.entries().expect("a set");
    assert_eq!((entries.len(), entries.iter().flatten().count()), (2, 1));
    script.reply(Reply::new(200).body("{\"metadata\""));
    let error = read(&mut source, ReadMode::Full).await.expect_err("cut short");
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

/// A server that lists one slice, and closes each watch after its life with one more endpoint.
async fn closing(life: Duration, speaks: bool) -> Script {
    let mut version = 7;
    let answer = move |request: &Received| {
        if option(request, "watch").is_none() {
            return list(version, "", &[slice("a", version, &["10.0.0.1"])]);
        }
        let reply = Reply::new(200).pause(life);
        if !speaks {
            return reply;
        }
        version += 1;
        let addresses: Vec<String> = (7..=version).map(|n| format!("10.0.0.{n}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        reply.chunk(event("MODIFIED", &slice("a", version, &addresses)))
    };
    Script::answering(answer).await.expect("loopback")
}

#[tokio::test]
async fn watch_closed_every_two_seconds_makes_no_storm_and_no_gap() {
    let script = closing(Duration::from_secs(2), true).await;
    let began = Instant::now();
    let mut source = source(config(&script));
    set(&mut source, ReadMode::Full).await;
    for n in 2..5 {
        assert_eq!(set(&mut source, ReadMode::Changed).await.len(), n, "each change is seen");
    }
    let n_requests = script.received().len();
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("a few");
    assert!(n_requests <= 2 + seconds, "{n_requests} in {seconds} s");
    let n_lists = script.received().iter().filter(|it| option(it, "watch").is_none()).count();
    assert_eq!(n_lists, 1, "the position is resumed");
}

#[tokio::test]
async fn watch_that_ends_immediately_becomes_trouble_and_a_list() {
    let script = closing(Duration::ZERO, false).await;
    let mut source = source(config(&script));
    set(&mut source, ReadMode::Full).await;
    let began = Instant::now();
    let trouble = outcome(&mut source).await;
    assert!(trouble.contains("watches in a row"), "{trouble}");
    assert!(began.elapsed() >= Duration::from_secs(1), "paced");
    assert!(script.received().len() <= 5, "{}", script.received().len());
    assert_eq!(set(&mut source, ReadMode::Changed).await, ["10.0.0.1:80"]);
}

#[tokio::test]
async fn emptied_slice_is_accepted_and_a_vanished_one_is_held() {
    let script = Script::start().await.expect("loopback");
    script.reply(list(7, "", &[slice("a", 1, &["10.0.0.1"]), slice("b", 2, &["10.0.0.2"])]));
    let kubernetes = Kubernetes::new(config(&script)).expect("it can work");
    let follower = kubernetes.instancer("orders");
    let mut subscription = follower.subscribe();
    let ready = subscription.ready(Duration::from_secs(10)).await.expect("a list");
    assert_eq!(ready.instances().len(), 2);
    let emptied = event("MODIFIED", &slice("a", 8, &[]));
    let vanished = event("DELETED", &slice("b", 9, &[]));
    for (event, n, n_held) in [(emptied, 1, 0), (vanished, 0, 1)] {
        // The watch waits for it, and ends behind it.
        script.reply(Reply::new(200).chunk(event));
        shared::reaches(&mut subscription, |it| {
            (it.instances().len(), it.held().len()) == (n, n_held)
        })
        .await;
    }
}

#[tokio::test]
async fn nothing_is_published_before_the_last_page() {
    let script = Script::start().await.expect("loopback");
    script.reply(list(7, "more", &[slice("a", 1, &["10.0.0.1"])]));
    let registry = RegistryConfig::default().loss(LossPolicy::Accept);
    let kubernetes = Kubernetes::new(config(&script).registry(registry)).expect("it can work");
    let follower = kubernetes.instancer("orders");
    let mut subscription = follower.subscribe();
    script.next().await;
    script.next().await;
    let early = subscription.ready(Duration::from_millis(200)).await;
    assert!(early.is_err(), "{early:?}");
    script.reply(list(7, "", &[slice("b", 2, &["10.0.0.2"])]));
    let snapshot = subscription.ready(Duration::from_secs(10)).await.expect("all pages");
    assert_eq!(snapshot.instances().len(), 2);
}

#[tokio::test]
async fn registering_is_refused_with_the_reason() {
    let script = Script::start().await.expect("loopback");
    let registry = tower_sd_core::Registry::from(Kubernetes::new(config(&script)).expect("valid"));
    let instance = tower_sd_core::Instance::new("10.0.0.1", 80);
    let registration = tower_sd_core::Registration::new("orders", instance);
    let error = registry.register(registration).await.expect_err("read only");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("registering is the platform's"), "{error}");
    for service in ["Orders", "shop/orders"] {
        let error = registry.instancer(service).map(drop).expect_err(service);
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}
