//! Watches that go on, and the pace of those that end.

use tokio::time::sleep;
use tower_sd_testkit::script::Script;

use super::{shared::reaches, *};
use crate::Query;

/// A slice of `orders` whose port has this name.
fn named(version: u32, port: &str) -> Value {
    let mut slice = slice("a", version, &["10.0.0.1"]);
    slice["ports"][0]["name"] = port.into();
    slice
}

fn n_of(script: &Script, is_watch: bool) -> usize {
    script.received().iter().filter(|it| option(it, "watch").is_some() == is_watch).count()
}

#[tokio::test]
async fn verification_keeps_the_watch() {
    for is_refused in [false, true] {
        let script = Script::start().await.expect("loopback");
        let mut source = source(config(&script));
        script.reply(list(7, "", &[slice("a", 1, &["10.0.0.1"])]));
        set(&mut source, ReadMode::Full).await;
        let next = event("MODIFIED", &slice("a", 8, &["10.0.0.1", "10.0.0.2"]));
        let reply = Reply::new(200).chunk(bookmark()).pause(Duration::from_secs(1));
        script.reply(reply.chunk(next).hang());
        assert!(outcome(&mut source).await.contains("Unchanged"), "it watches");
        script.reply(match is_refused {
            true => Reply::new(503).body(status(503, "ServiceUnavailable").to_string()),
            false => list(7, "", &[slice("a", 1, &["10.0.0.1"])]),
        });
        let verified =
            format!("{:?}", read(&mut source, ReadMode::Verify).await.expect("no error"));
        let expected = if is_refused { "Trouble" } else { "Unchanged" };
        assert!(verified.contains(expected), "{verified}");
        assert_eq!(set(&mut source, ReadMode::Changed).await.len(), 2);
        assert_eq!(n_of(&script, true), 1, "{:?}", script.received());
    }
}

#[tokio::test]
async fn verification_that_finds_another_set_gives_it() {
    let script = Script::start().await.expect("loopback");
    let mut source = source(config(&script));
    script.reply(list(7, "", &[slice("a", 1, &["10.0.0.1"])]));
    set(&mut source, ReadMode::Full).await;
    script.reply(Reply::new(200).chunk(bookmark()).hang());
    assert!(outcome(&mut source).await.contains("Unchanged"), "it watches");
    script.reply(list(9, "", &[slice("a", 9, &["10.0.0.2"])]));
    assert_eq!(set(&mut source, ReadMode::Verify).await, ["10.0.0.2:80"]);
    script.reply(Reply::new(200).chunk(event("MODIFIED", &slice("a", 10, &["10.0.0.3"]))).hang());
    assert_eq!(set(&mut source, ReadMode::Changed).await, ["10.0.0.3:80"]);
    let versions = script.received().into_iter().filter_map(|it| option(&it, "resourceVersion"));
    assert_eq!(versions.collect::<Vec<_>>(), ["7", "9"]);
}

#[tokio::test]
async fn refused_verification_of_a_shared_watch_is_trouble() {
    let answer = |request: &Received| {
        let selector = option(request, "labelSelector").expect("always");
        match option(request, "watch") {
            Some(_) => Reply::new(200).hang(),
            None if selector.contains('=') => Reply::new(503),
            None => list(7, "", &[slice("a", 1, &["10.0.0.1"])]),
        }
    };
    let script = Script::answering(answer).await.expect("loopback");
    let mut source = source(config(&script).max_single_watches(0));
    set(&mut source, ReadMode::Full).await;
    for mode in [ReadMode::Verify, ReadMode::Full] {
        let verified = format!("{:?}", read(&mut source, mode).await.expect("no error"));
        assert!(verified.contains("Trouble"), "{verified}");
    }
}

#[tokio::test]
async fn watch_is_read_on_while_its_set_is_refused() {
    for max_single in [32, 0] {
        let answer = |request: &Received| match option(request, "watch") {
            None => list(7, "", &[named(1, "http")]),
            Some(_) => {
                let mut reply = Reply::new(200).pause(Duration::from_millis(500));
                reply = reply.chunk(event("MODIFIED", &named(8, "web")));
                for _ in 0..3 {
                    reply = reply.pause(Duration::from_millis(500)).chunk(bookmark());
                }
                reply.chunk(event("MODIFIED", &named(9, "http"))).hang()
            }
        };
        let script = Script::answering(answer).await.expect("loopback");
        let config = config(&script).max_single_watches(max_single);
        let kubernetes = Kubernetes::new(config).expect("it can work");
        let follower = kubernetes.instancer(Query::new("orders").port("http"));
        let mut subscription = follower.subscribe();
        reaches(&mut subscription, |it| it.freshness().is_fresh()).await;
        reaches(&mut subscription, |it| !it.freshness().is_fresh()).await;
        let began = Instant::now();
        reaches(&mut subscription, |it| it.freshness().is_fresh()).await;
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
}

/// A server that was restored, or one behind the others, has not reached the position.
#[tokio::test]
async fn version_that_the_server_has_not_reached_is_read_anew() {
    let mut behind = status(504, "Timeout");
    behind["message"] = "Too large resource version: 7, current: 3".into();
    behind["details"] = json!({ "causes": [{ "reason": "ResourceVersionTooLarge" }] });
    let refusals =
        [Reply::new(504).body(behind.to_string()), Reply::new(200).chunk(event("ERROR", &behind))];
    for refusal in refusals {
        let script = Script::start().await.expect("loopback");
        let mut source = source(config(&script));
        script.reply(list(7, "", &[slice("a", 1, &["10.0.0.1"])]));
        set(&mut source, ReadMode::Full).await;
        script.reply(refusal);
        let trouble = outcome(&mut source).await;
        assert!(trouble.contains("Trouble") && trouble.contains("Too large"), "{trouble}");
        script.reply(list(3, "", &[slice("a", 3, &["10.0.0.2"])]));
        assert_eq!(set(&mut source, ReadMode::Changed).await, ["10.0.0.2:80"]);
        script.reply(Reply::new(200).chunk(event("MODIFIED", &slice("a", 4, &["10.0.0.3"]))));
        assert_eq!(set(&mut source, ReadMode::Changed).await, ["10.0.0.3:80"]);
        let versions = script.received().into_iter().map(|it| option(&it, "resourceVersion"));
        let some = |version: &str| Some(version.to_owned());
        assert_eq!(versions.collect::<Vec<_>>(), [None, some("7"), None, some("3")]);
    }
}

/// An API server is restarted, and the watches of all its clients break in one moment.
#[tokio::test]
async fn lists_after_broken_watches_are_spread() {
    const N: usize = 40;
    let answer = |request: &Received| match option(request, "watch") {
        None => list(7, "", &[slice("a", 1, &["10.0.0.1"])]),
        Some(_) => Reply::new(200).chunk(bookmark()).pause(Duration::from_secs(2)).cut(),
    };
    let script = Script::answering(answer).await.expect("loopback");
    let mut sources: Vec<_> = (0..N).map(|_| source(config(&script))).collect();
    let full = sources.iter_mut().map(|source| set(source, ReadMode::Full));
    futures_util::future::join_all(full).await;
    let bookmarks = sources.iter_mut().map(outcome);
    futures_util::future::join_all(bookmarks).await;
    let listed = sources.iter_mut().map(async |source| {
        set(source, ReadMode::Changed).await;
        Instant::now()
    });
    let mut listed = futures_util::future::join_all(listed).await;
    listed.sort();
    let (first, last) = (listed[0], listed[N - 1]);
    assert!(last - first >= Duration::from_millis(500), "{:?}", last - first);
    assert_eq!(n_of(&script, false), 2 * N);
}

#[tokio::test]
async fn shared_watch_with_an_event_and_an_end_makes_no_storm() {
    let script = closing(Duration::ZERO, true).await;
    let config = config(&script).max_single_watches(0);
    let kubernetes = Kubernetes::new(config).expect("it can work");
    let follower = kubernetes.instancer("orders");
    let mut subscription = follower.subscribe();
    reaches(&mut subscription, |it| it.instances().len() == 3).await;
    let n_before = script.received().len();
    sleep(Duration::from_secs(3)).await;
    let n = script.received().len() - n_before;
    assert!(n <= 5, "{n} requests in 3 s");
}

#[tokio::test]
async fn server_without_answers_is_reported_to_all_readers_together() {
    let script = Script::answering(|_| Reply::new(200).pause(Duration::from_secs(60)));
    let script = script.await.expect("loopback");
    let client = KubernetesClient::new(config(&script).timeout(Duration::from_secs(1)));
    let client = client.expect("it can work");
    let sources = (0..28).map(|_| KubernetesSource::new(client.clone(), "orders".into()));
    let began = Instant::now();
    let read = sources.map(async |mut source| read(&mut source, ReadMode::Full).await);
    for result in futures_util::future::join_all(read).await {
        assert_eq!(result.expect_err("no answer").kind(), ErrorKind::Timeout);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
