use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::timeout;
use tower_sd_core::{ErrorKind, Instancer, ReadMode, ReadRequest, Snapshot, Source};
use tower_sd_testkit::{
    script::{Received, Reply, Script},
    wait::shows_that,
};

use super::*;
use crate::{EurekaServer, Query, source::EurekaSource};

const APPS: &str = r#"{"applications":{"application":[{"name":"X","instance":[
    {"instanceId":"a","hostName":"h"}]}]}}"#;
const ONE: &str = r#"{"application":{"name":"X","instance":[{"instanceId":"a","hostName":"h"}]}}"#;

fn client(script: &Script) -> EurekaClient {
    let config = EurekaConfig::new(format!("{}/eureka", script.url()));
    EurekaClient::new(config.basic_auth("app", "s3cr3t")).expect("it can work")
}

async fn read(client: &EurekaClient) -> Result<usize> {
    client.instances(Lookup::App, "X").await.map(|entries| entries.len())
}

#[tokio::test]
async fn request_accepts_json_and_gzip_and_has_its_credentials() {
    let script = Script::start().await.expect("loopback");
    script.reply(Reply::new(200).body(ONE));
    assert_eq!(read(&client(&script)).await.expect("an answer"), 1);
    let request = script.next().await;
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/eureka/apps/X"));
    let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("accept"), Some("application/json"));
    assert_eq!(header("accept-encoding"), Some("gzip"));
    assert_eq!(header("authorization"), Some("Basic YXBwOnMzY3IzdA=="));
    assert!(!format!("{:?}", client(&script)).contains("s3cr3t"));
}

#[tokio::test]
async fn compressed_answer_is_read_within_its_bound() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, bytes).expect("memory");
        encoder.finish().expect("memory")
    };
    let script = Script::start().await.expect("loopback");
    let config = EurekaConfig::new(format!("{}/eureka", script.url())).max_body(10_000);
    let client = EurekaClient::new(config).expect("it can work");
    let reply = |bytes: &[u8]| Reply::new(200).header("content-encoding", "gzip").body(gzip(bytes));
    script.reply(reply(ONE.as_bytes()));
    assert_eq!(read(&client).await.expect("an answer"), 1);
    for (bomb, part) in [(reply(&[b' '; 1_000_000]), "max_body"), (reply(b"").body("x"), "gzip")] {
        script.reply(bomb);
        let error = read(&client).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn xml_is_an_error_that_names_the_header() {
    let script = Script::start().await.expect("loopback");
    script.reply(Reply::new(200).body("<application><name>X</name></application>"));
    let error = read(&client(&script)).await.expect_err("no JSON");
    assert!(error.to_string().contains("Accept: application/json"), "{error}");
    for body in ["", "[]", "{", r#"{"application":7}"#, "null"] {
        script.reply(Reply::new(200).body(body));
        let error = read(&client(&script)).await.expect_err(body);
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Protocol, true), "{body}");
    }
}

#[tokio::test]
async fn unknown_application_is_empty_and_wrong_base_path_an_error() {
    let script = Script::start().await.expect("loopback");
    let client = client(&script);
    script.reply(Reply::new(404));
    script.reply(Reply::new(404));
    let error = read(&client).await.expect_err("there is no server");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("base path"), "{error}");
    script.reply(Reply::new(404));
    script.reply(Reply::new(200).body("{}"));
    assert_eq!(read(&client).await.expect("an answer"), 0);
    script.reply(Reply::new(404));
    assert_eq!(read(&client).await.expect("an answer"), 0);
    script.reply(Reply::new(404).body(r#"{"status":404,"path":"/eureka/apps/X"}"#));
    assert_eq!(read(&client).await.expect("an answer"), 0);
    let n_received = script.received().len();
    for page in ["<html>no backend</html>", "404 page not found\n", "default backend - 404"] {
        for changes in [Reply::new(404).body(page), Reply::new(200).body(page), Reply::new(503)] {
            script.reply(Reply::new(404).body(page));
            script.reply(changes);
            let error = read(&client).await.expect_err("a proxy's answer");
            assert!(error.is_transient(), "{error}");
        }
    }
    assert_eq!(script.received().len(), n_received + 18);
}

/// Netflix's server runs in Tomcat, which has a page for each error.
#[tokio::test]
async fn page_of_a_server_that_has_recent_changes_is_an_unknown_entry() {
    let page = "<!doctype html><html><head><title>HTTP Status 404</title></head></html>";
    for changes in [Reply::new(200).body(APPS), Reply::new(403).body(page)] {
        let answer = move |request: &Received| match request.target.as_str() {
            "/eureka/apps/delta" => changes.clone(),
            _ => Reply::new(404).body(page),
        };
        let script = Script::answering(answer).await.expect("loopback");
        let client = client(&script);
        assert_eq!(read(&client).await.expect("an answer"), 0);
        assert!(client.entry("register", "X", "a").await.expect("an answer").is_none());
        assert_eq!(client.renew("X", "a", Status::Up, 1).await.expect("an answer"), Known::No);
    }
}

/// Refused reads, errors, a hanging and an absent server: each is left for the next one.
#[tokio::test]
async fn server_that_fails_is_left_and_the_next_is_stuck_to() {
    let reply = || Reply::new(200).body(ONE);
    let good = Script::answering(move |_| reply()).await.expect("loopback");
    for bad in [Reply::new(403), Reply::new(503), Reply::closed(), Reply::never()] {
        let first = Script::start().await.expect("loopback");
        first.reply(bad);
        let mut config = EurekaConfig::new(format!("{}/eureka", first.url()));
        config.servers[0].zone = Some("here".into());
        let config = config
            .zone("here")
            .server(EurekaServer::new(format!("{}/eureka", good.url())))
            .timeout(Duration::from_millis(500));
        let client = EurekaClient::new(config).expect("it can work");
        assert_eq!(read(&client).await.expect("the second answers"), 1);
        assert_eq!(read(&client).await.expect("the second is stuck to"), 1);
        assert_eq!(first.received().len(), 1);
    }
}

#[tokio::test]
async fn confirming_read_combines_the_answers_of_all_servers() {
    let answer = |entries: &str| {
        let body = format!(r#"{{"application":{{"name":"X","instance":{entries}}}}}"#);
        Script::answering(move |_| Reply::new(200).body(body.clone()))
    };
    let old = answer(r#"{"instanceId":"a","lastDirtyTimestamp":"1","status":"DOWN"}"#).await;
    let young =
        answer(r#"[{"instanceId":"a","lastDirtyTimestamp":"2","status":"UP"},{"instanceId":"b"}]"#)
            .await;
    let (old, young) = (old.expect("loopback"), young.expect("loopback"));
    let config = EurekaConfig::new(format!("{}/eureka", old.url()))
        .server(EurekaServer::new(format!("{}/eureka", young.url())))
        .server(EurekaServer::new("http://127.0.0.1:9/eureka"));
    let client = EurekaClient::new(config).expect("it can work");
    let all = client.instances_of_all(Lookup::App, "X", false).await.expect("two of three answer");
    let ids: Vec<_> = all.iter().map(|entry| (entry.id(), entry.status)).collect();
    assert_eq!(ids, [("a", Status::Up), ("b", Status::Unknown)]);
    assert_eq!(read(&client).await.expect("the one that has more is used"), 2);
}

/// An ingress without its server, a page to sign in, a redirect.
#[tokio::test]
async fn proxy_without_a_server_is_left_for_a_peer() {
    for (reply, n_failures, n_received) in [
        (Reply::new(404).body("404 page not found"), 0, 2),
        (Reply::new(200).body("<html>Sign in</html>"), 0, 1),
        (Reply::new(302).header("location", "/login"), 1, 1),
        (Reply::new(401), 1, 1),
    ] {
        let proxy = Script::answering(move |_| reply.clone()).await.expect("loopback");
        let peer = Script::answering(|request| match request.method.as_str() {
            "GET" => Reply::new(200).body(ONE),
            _ => Reply::new(200),
        });
        let peer = peer.await.expect("loopback");
        let config = EurekaConfig::new(format!("{}/eureka", proxy.url()))
            .zone("here")
            .server(EurekaServer::new(format!("{}/eureka", peer.url())));
        let mut config = config;
        config.servers[0].zone = Some("here".to_owned());
        let client = EurekaClient::new(config).expect("it can work");
        let mut failures = 0;
        for _ in 0..5 {
            let renewed = client.renew("X", "a", Status::Up, 1).await;
            failures += usize::from(renewed.is_err());
        }
        assert_eq!(failures, n_failures);
        assert_eq!(read(&client).await.expect("of the peer"), 1);
        assert_eq!(proxy.received().len(), n_received);
    }
}

/// Several peers that hang take as long as one.
#[tokio::test]
async fn confirming_read_waits_for_all_servers_concurrently() {
    let bound = Duration::from_secs(1);
    let good = Script::answering(|_| Reply::new(200).body(ONE)).await.expect("loopback");
    let mut hanging = Vec::new();
    let mut config = EurekaConfig::new(format!("{}/eureka", good.url())).timeout(bound);
    for _ in 0..8 {
        let script = Script::start().await.expect("loopback");
        config = config.server(EurekaServer::new(format!("{}/eureka", script.url())));
        hanging.push(script);
    }
    let client = EurekaClient::new(config).expect("it can work");
    let start = tokio::time::Instant::now();
    let all = client.instances_of_all(Lookup::App, "X", false).await.expect("one answers");
    assert_eq!(all.len(), 1);
    assert!(start.elapsed() < bound * 5, "{:?}", start.elapsed());
}

/// A peer that does not answer may have what the others lack.
#[tokio::test]
async fn confirming_read_is_empty_only_if_all_servers_answer() {
    let empty = Script::answering(|request| match request.target.as_str() {
        "/eureka/apps/delta" => Reply::new(200).body("{}"),
        _ => Reply::new(404),
    });
    let empty = empty.await.expect("loopback");
    let config = EurekaConfig::new(format!("{}/eureka", empty.url()));
    let alone = EurekaClient::new(config.clone()).expect("it can work");
    let all = alone.instances_of_all(Lookup::App, "X", false).await;
    assert_eq!(all.expect("an answer").len(), 0);
    let config = config.server(EurekaServer::new("http://127.0.0.1:9/eureka"));
    let client = EurekaClient::new(config).expect("it can work");
    let error = client.instances_of_all(Lookup::App, "X", false).await.expect_err("one is away");
    assert!(error.is_transient(), "{error}");
    // One that is away for good holds nothing for good.
    let mut source = EurekaSource::new(client, Query::new("X"));
    let mut n_refused = 0;
    while source.read(ReadRequest::new(ReadMode::Confirm)).await.is_err() {
        n_refused += 1;
    }
    assert_eq!(n_refused, 8);
}

/// A pause that the server requests is the shared task's, and no follower's after it.
#[tokio::test]
async fn followers_of_a_shared_read_get_its_cause_and_its_end() {
    let n_requests = AtomicUsize::new(0);
    let script = Script::answering(move |_| match n_requests.fetch_add(1, Relaxed) {
        0 => Reply::new(200).body(APPS),
        1 => Reply::new(500),
        2 => Reply::new(503).header("retry-after", "120"),
        _ => Reply::new(200).body(APPS),
    });
    let script = script.await.expect("loopback");
    let query = Query::new("X").poll_interval(Duration::from_millis(100));
    let config = EurekaConfig::new(format!("{}/eureka", script.url())).query(query.clone());
    let client = EurekaClient::new(config.max_single_reads(0)).expect("it can work");
    let mut source = EurekaSource::new(client.clone(), query.clone());
    let mut late = EurekaSource::new(client, query);
    let mut reads = Vec::new();
    for mode in [ReadMode::Full, ReadMode::Changed] {
        reads.push(format!("{:?}", source.read(ReadRequest::new(mode)).await));
    }
    assert!(reads[0].contains("Set") && reads[1].contains("Trouble"), "{reads:?}");
    while script.received().len() < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Each has the cause without waiting for the end of the pause.
    for mode in [ReadMode::Full, ReadMode::Verify] {
        let read = timeout(BOUND, late.read(ReadRequest::new(mode))).await.expect("soon");
        let read = format!("{read:?}");
        assert!(read.contains("503") && !read.contains("120"), "{read}");
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(150)).await;
    tokio::time::resume();
    for source in [&mut source, &mut late] {
        let read = timeout(BOUND, source.read(ReadRequest::new(ReadMode::Changed))).await;
        let read = format!("{:?}", read.expect("soon").expect("an answer"));
        assert!(!read.contains("Trouble"), "the cause again: {read}");
    }
    assert_eq!(script.received().len(), 4, "the pause was kept");
}

/// A server that was wiped: each of them loses its set in the same moment.
#[tokio::test]
async fn confirming_reads_of_many_followers_are_few() {
    let start = || {
        Script::answering(|request| match request.target.as_str() {
            "/eureka/apps" => Reply::new(200).body(APPS),
            _ => Reply::new(200).body(ONE),
        })
    };
    let (a, b) = (start().await.expect("loopback"), start().await.expect("loopback"));
    let config = EurekaConfig::new(format!("{}/eureka", a.url()))
        .server(EurekaServer::new(format!("{}/eureka", b.url())));
    let client = EurekaClient::new(config).expect("it can work");
    let confirm = || client.instances_of_all(Lookup::App, "X", false);
    let all = join_all((0..1000).map(|_| confirm())).await;
    assert!(all.into_iter().all(|read| read.expect("an answer").len() == 1));
    let (a, b) = (a.received().len(), b.received().len());
    assert!(a <= 8 + 3 && b <= 8 + 3, "{a} and {b} requests of a thousand followers");
}

#[tokio::test]
async fn server_without_changes_is_stuck_to() {
    let start = || {
        Script::answering(|request| match request.target.as_str() {
            "/eureka/apps/delta" => Reply::new(403),
            "/eureka/apps" => Reply::new(200).body(r#"{"applications":{"application":[]}}"#),
            _ => Reply::new(404),
        })
    };
    let (a, b) = (start().await.expect("loopback"), start().await.expect("loopback"));
    let config = EurekaConfig::new(format!("{}/eureka", a.url()))
        .server(EurekaServer::new(format!("{}/eureka", b.url())));
    let client = EurekaClient::new(config).expect("it can work");
    let mut fetch = registry::Fetch::new();
    for _ in 0..4 {
        fetch.read(&client.0.wire.servers).await.expect("an answer");
        assert_eq!(read(&client).await.expect("an answer"), 0);
    }
    let n = [a.received().len(), b.received().len()];
    assert!(n.contains(&0), "{n:?}");
}

#[tokio::test]
async fn path_has_no_character_that_tomcat_refuses() {
    let script = Script::start().await.expect("loopback");
    script.reply(Reply::new(404));
    let found = client(&script).entry("register", "X", "pod[0]|^ä").await;
    assert_eq!(found.expect("an answer"), None);
    assert_eq!(script.next().await.target, "/eureka/apps/X/pod%5B0%5D%7C%5E%C3%A4");
}

#[tokio::test]
async fn password_of_a_file_is_read_again_after_a_refusal() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "old\n").expect("our file");
    let script = Script::start().await.expect("loopback");
    let config = EurekaConfig::new(format!("{}/eureka", script.url()));
    let client = EurekaClient::new(config.password_file("app", file.path())).expect("readable");
    script.reply(Reply::new(401));
    let error = read(&client).await.expect_err("the same password is not tried again");
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Denied, false));
    std::fs::write(file.path(), "new\n").expect("our file");
    script.reply(Reply::new(401));
    script.reply(Reply::new(200).body(ONE));
    assert_eq!(read(&client).await.expect("the new password"), 1);
}

/// The server's cache can lack an application that has just registered.
#[tokio::test]
async fn application_that_becomes_unknown_is_held_without_an_error() {
    let n_requests = AtomicUsize::new(0);
    let script = Script::answering(move |_| match n_requests.fetch_add(1, Relaxed) {
        0 => Reply::new(200).body(
            r#"{"application":{"name":"X","instance":{"instanceId":"a","app":"X",
            "hostName":"h","status":"UP","port":{"$":1,"@enabled":"true"}}}}"#,
        ),
        _ => Reply::new(404),
    });
    let script = script.await.expect("loopback");
    let query = Query::new("X").poll_interval(Duration::from_millis(100));
    let config = EurekaConfig::new(format!("{}/eureka", script.url()));
    let instancer = crate::Eureka::new(config).expect("it can work").instancer(query);
    let mut subscription = instancer.subscribe();
    let is_held = |it: &Snapshot| it.instances().is_empty() && it.held().len() == 1;
    shows_that(&mut subscription, "held", BOUND, is_held).await;
    let before = script.received().len();
    while script.received().len() < before + 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (snapshot, stats) = (subscription.snapshot(), subscription.stats());
    assert!(is_held(&snapshot) && snapshot.freshness().is_fresh(), "{snapshot:?}");
    assert_eq!((stats.errors, stats.malformed), (0, 0), "{stats:?}");
}

/// A read that is given up early, for a confirming one or with its instancer, proves nothing.
#[tokio::test]
async fn server_of_a_read_that_was_given_up_soon_stays_in_use() {
    let start = || Script::answering(|_| Reply::new(200).body(ONE).after(BOUND * 360));
    let (a, b) = (start().await.expect("loopback"), start().await.expect("loopback"));
    let config = EurekaConfig::new(format!("{}/eureka", a.url()))
        .server(EurekaServer::new(format!("{}/eureka", b.url())));
    let client = EurekaClient::new(config).expect("it can work");
    for _ in 0..5 {
        timeout(Duration::from_millis(50), read(&client)).await.expect_err("given up");
    }
    let n = [a.received().len(), b.received().len()];
    assert!(n.contains(&0), "{n:?}");
}

const BOUND: Duration = Duration::from_secs(10);
