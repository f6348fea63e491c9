//! Suspicion, unhealthy neighbours, and pauses that are required.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    join,
    time::{Instant, sleep, timeout},
};
use tower_sd_consul::Query;
use tower_sd_core::Instancer;
use tower_sd_testkit::script::{Reply, Script};

use crate::{BOUND, agent, entry, follow, has_index, listing, n_fresh, next, shows};

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

/// With no index to wait for, each of them is answered immediately.
#[tokio::test]
async fn shared_polls_without_an_index_come_every_2_s() {
    join!(polls_come_every_2_s("0"), polls_come_every_2_s(""));
}

async fn polls_come_every_2_s(index: &'static str) {
    let polls = Arc::<Mutex<BTreeMap<String, Vec<Instant>>>>::default();
    let seen = Arc::clone(&polls);
    let script = Script::answering(move |request| {
        if request.target.starts_with("/v1/health/service/") {
            return listing("42", [1]);
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(request.target.clone()).or_default().push(Instant::now());
        listing(index, [])
    });
    let script = script.await.expect("loopback");
    let _instancer = follow(agent(&script).max_blocking_queries(0), Query::new("web"));
    let copy = || polls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let repeated = async {
        while copy().values().filter(|times| times.len() > 1).count() < 4 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(2 * BOUND, repeated).await.unwrap_or_else(|_| panic!("{:?}", copy()));
    for (poll, times) in copy() {
        let mut pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(pauses.all(|pause| pause >= Duration::from_secs(2)), "{poll}: {times:?}");
    }
}
