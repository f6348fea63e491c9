//! What proves no set, or takes none away.

use tower_sd_core::{Follower, Subscription};

use super::*;

fn with_ports(mut slice: Value, names: &[&str]) -> Value {
    let ports = names.iter().zip(80..).map(|(name, port)| json!({ "name": name, "port": port }));
    slice["ports"] = ports.collect();
    slice
}

/// A follower of `orders` on a server that lists this.
async fn following(script: &Script, items: &[Value]) -> (Follower, Subscription) {
    script.reply(list(7, "", items));
    let kubernetes = Kubernetes::new(config(script)).expect("it can work");
    let follower = kubernetes.instancer("orders");
    let mut subscription = follower.subscribe();
    let n: usize = items.iter().map(|it| it["endpoints"].as_array().map_or(0, Vec::len)).sum();
    shared::reaches(&mut subscription, |it| it.instances().len() == n).await;
    (follower, subscription)
}

async fn shows(subscription: &mut Subscription, n: usize, n_held: usize) {
    shared::reaches(subscription, |it| (it.instances().len(), it.held().len()) == (n, n_held))
        .await;
}

#[tokio::test]
async fn bookmark_proves_no_set_that_was_refused() {
    let script = Script::start().await.expect("loopback");
    let a = with_ports(slice("a", 1, &["10.0.0.1"]), &["http"]);
    script.reply(list(7, "", std::slice::from_ref(&a)));
    let renamed = with_ports(a.clone(), &["web"]);
    let reply = Reply::new(200)
        .chunk(event("MODIFIED", &renamed))
        .pause(Duration::from_millis(100))
        .chunk(bookmark())
        .pause(Duration::from_millis(100))
        .chunk(event("MODIFIED", &a))
        .pause(Duration::from_millis(100));
    script.reply(reply.chunk(bookmark()).hang());
    let client = KubernetesClient::new(config(&script)).expect("it can work");
    let query = crate::Query::new("orders").port("http");
    let mut source = KubernetesSource::new(client, query);
    set(&mut source, ReadMode::Full).await;
    let refused = outcome(&mut source).await;
    assert!(refused.contains("Trouble") && refused.contains("no TCP port"), "{refused}");
    assert_eq!(set(&mut source, ReadMode::Changed).await, ["10.0.0.1:80"]);
    assert!(outcome(&mut source).await.contains("Unchanged"));
}

#[tokio::test]
async fn list_after_a_broken_watch_states_no_absence() {
    let script = Script::start().await.expect("loopback");
    let slices = [slice("a", 1, &["10.0.0.1", "10.0.0.2"])];
    let (_follower, mut subscription) = following(&script, &slices).await;
    script.reply(Reply::new(200).chunk(bookmark()).cut());
    script.reply(list(3, "", &[slice("a", 3, &[])]));
    shows(&mut subscription, 0, 2).await;
    let whole = slice("a", 4, &["10.0.0.1", "10.0.0.2"]);
    script.reply(Reply::new(200).chunk(event("MODIFIED", &whole)));
    shows(&mut subscription, 2, 0).await;
    script.reply(Reply::new(200).chunk(event("MODIFIED", &slice("a", 5, &[]))).hang());
    shows(&mut subscription, 0, 0).await;
}

/// A broken readiness probe, or a node that lost its network, makes all pods unready.
#[tokio::test]
async fn endpoints_that_are_all_unready_are_held() {
    let script = Script::start().await.expect("loopback");
    let addresses = ["10.0.0.1", "10.0.0.2"];
    let ready = slice("a", 1, &addresses);
    let (_follower, mut subscription) = following(&script, std::slice::from_ref(&ready)).await;
    let mut unready = slice("a", 8, &addresses);
    for endpoint in unready["endpoints"].as_array_mut().expect("two") {
        endpoint["conditions"] = json!({ "ready": false });
    }
    let back = slice("a", 9, &addresses);
    let reply = Reply::new(200).chunk(event("MODIFIED", &unready)).pause(Duration::from_secs(2));
    script.reply(reply.chunk(event("MODIFIED", &back)).hang());
    shows(&mut subscription, 0, 2).await;
    shows(&mut subscription, 2, 0).await;
}

#[tokio::test]
async fn slice_that_loses_the_port_takes_no_endpoint_away() {
    let script = Script::start().await.expect("loopback");
    let a = slice("a", 1, &["10.0.0.1", "10.0.0.2"]);
    let b = slice("b", 2, &["10.0.0.3"]);
    let (_follower, mut subscription) = following(&script, &[a.clone(), b]).await;
    let two = with_ports(a, &["", "admin"]);
    script.reply(Reply::new(200).chunk(event("MODIFIED", &two)).hang());
    shows(&mut subscription, 1, 2).await;
    assert!(subscription.stats().malformed >= 1, "{:?}", subscription.stats());
}

#[tokio::test]
async fn slice_above_the_bound_is_skipped_and_counted() {
    let script = Script::start().await.expect("loopback");
    let mut source = source(config(&script).max_object(10_000));
    let large = slice("b", 2, &["10.0.0.9"; 400]);
    script.reply(list(7, "", &[slice("a", 1, &["10.0.0.1"]), large.clone()]));
    let counts = |result: ReadResult| {
        let entries = result.entries().expect("a set");
        (entries.len(), entries.iter().flatten().count())
    };
    assert_eq!(counts(read(&mut source, ReadMode::Full).await.expect("a set")), (2, 1));
    let larger = event("MODIFIED", &large) + &event("ADDED", &slice("c", 9, &["10.0.0.3"]));
    script.reply(Reply::new(200).chunk(larger).hang());
    assert_eq!(counts(read(&mut source, ReadMode::Changed).await.expect("a set")), (3, 2));
}

#[tokio::test]
async fn token_that_was_read_anew_is_in_no_error() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "old").expect("our file");
    let script = Script::start().await.expect("loopback");
    let mut source = source(config(&script).token_file(file.path()));
    fs::write(file.path(), "new-s3cr3t").expect("our file");
    let mut echo = status(403, "Forbidden");
    echo["message"] = "no access with new-s3cr3t".into();
    script.reply(Reply::new(401));
    script.reply(Reply::new(403).body(echo.to_string()));
    let error = read(&mut source, ReadMode::Full).await.expect_err("refused");
    let text = format!("{error:?} {error}");
    assert!(text.contains("***") && !text.contains("s3cr3t"), "{text}");
    script.reply(list(7, "", &[slice("a", 1, &["10.0.0.1"])]));
    set(&mut source, ReadMode::Full).await;
    script.reply(Reply::new(200).chunk(event("ERROR", &echo)));
    let trouble = outcome(&mut source).await;
    assert!(trouble.contains("***") && !trouble.contains("s3cr3t"), "{trouble}");
}
