//! Suspicion, unhealthy neighbours, and pauses that are required.

use std::time::Duration;

use tokio::time::timeout;
use tower_sd_consul::Query;
use tower_sd_core::Instancer;
use tower_sd_testkit::script::{Reply, Script};

use crate::{agent, entry, follow, has_index, listing, n_fresh, next, shows};

/// A client's failing endpoints suspect the view; what waits for a change goes on.
#[tokio::test]
async fn suspicion_is_one_plain_read_beside_the_query_that_waits() {
    let script = Script::answering(|request| match has_index(request) {
        true => listing("42", [1]).after(Duration::from_secs(30)),
        false => listing("42", [1]),
    });
    let script = script.await.expect("loopback");
    let instancer = follow(agent(&script), Query::new("web"));
    let mut subscription = instancer.subscribe();
    shows(&mut subscription, "it", n_fresh(1)).await;
    next(&script).await;
    assert!(has_index(&next(&script).await));
    subscription.refresh();
    assert!(!has_index(&next(&script).await), "the view is verified");
    let more = timeout(Duration::from_millis(500), script.next()).await;
    assert!(more.is_err(), "the query that waits was dropped: {more:?}");
}

/// An unhealthy instance is part of the set, so that a malformed one beside it is not all there is.
#[tokio::test]
async fn malformed_entry_beside_critical_ones_is_no_error() {
    let script = Script::start().await.expect("loopback");
    let instancer = follow(agent(&script), Query::new("web"));
    let mut subscription = instancer.subscribe();
    let malformed = entry(9).replace(r#""Port":80"#, r#""Port":0"#);
    let both = |health: &str| {
        let checks = format!(r#""Checks":[{{"CheckID":"c","Status":"{health}"}}]"#);
        let list = format!("[{},{malformed}]", entry(1).replace(r#""Checks":[]"#, &checks));
        Reply::new(200).body(list).header("x-consul-index", "42")
    };
    script.reply(both("passing"));
    shows(&mut subscription, "it", n_fresh(1)).await;
    script.reply(both("critical"));
    shows(&mut subscription, "none, fresh", n_fresh(0)).await;
}

#[tokio::test]
async fn pause_that_a_proxy_requires_is_kept() {
    let script = Script::start().await.expect("loopback");
    let instancer = follow(agent(&script), Query::new("web"));
    script.reply(Reply::new(503).header("retry-after", "2").body("later"));
    shows(&mut instancer.subscribe(), "an error", |it| it.freshness().error().is_some()).await;
    next(&script).await;
    let sooner = timeout(Duration::from_secs(1), script.next()).await;
    assert!(sooner.is_err(), "{sooner:?}");
    next(&script).await;
}
