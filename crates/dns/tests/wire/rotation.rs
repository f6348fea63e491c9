//! Answers that are another part of the set every time.

use std::time::Duration;

use tower_sd_core::Snapshot;
use tower_sd_dns::Query;

use crate::{
    scene::{SERVICE, Settings, shown},
    support::{NameServer, Reply, a, srv},
};

/// Returns 8 of 24 addresses, others every time, as Route 53 does.
async fn rotating() -> NameServer {
    let mut n = 0;
    NameServer::start(move |asked| {
        n = (n + 8) % 24;
        Reply::records((n..n + 8).map(|last| a(&asked.name, 0, [10, 0, 0, last + 1])))
    })
    .await
}

#[tokio::test]
async fn rotating_answers_are_one_set_with_a_retention() {
    let server = rotating().await;
    let query = Query::host("a.lab.test", 80).expect("a name");
    let query = query.retention(Duration::from_secs(60));
    let mut following = Settings::of([server.address]).query(query).start();
    following.sees_that("all 24", |it| it.instances().len() == 24).await;
    let before = following.subscription.snapshot();
    server.is_asked_again(6).await;
    let after = following.subscription.snapshot();
    assert_eq!(shown(&after), shown(&before));
    assert_eq!(after.revision(), before.revision(), "nothing has changed");
}

#[tokio::test]
async fn rotating_answers_replace_each_other_without_a_retention() {
    let server = rotating().await;
    let query = Query::host("a.lab.test", 80).expect("a name");
    let mut following = Settings::of([server.address]).query(query).start();
    let first = following.sees_that("eight", |it| it.instances().len() == 8).await;
    let listed = shown(&first);
    let is_replaced = |it: &Snapshot| shown(it).iter().all(|shown| !listed.contains(shown));
    following.sees_that("others", is_replaced).await;
}

/// A record that left DNS stays no longer than the retention.
#[tokio::test]
async fn instance_leaves_when_its_retention_is_over() {
    let two =
        [srv(SERVICE, 0, (0, 0, 80, "a.lab.test.")), srv(SERVICE, 0, (0, 0, 81, "a.lab.test."))];
    let address = || a("a.lab.test.", 0, [10, 0, 0, 1]);
    let [first, second] = two;
    let both = Reply::records([first.clone(), second]).additional(address());
    let server = NameServer::start(move |_| both.clone()).await;
    let query = Query::srv(SERVICE).expect("a name").retention(Duration::from_millis(300));
    let mut following = Settings::of([server.address]).query(query).start();
    following.sees(&["10.0.0.1:80", "10.0.0.1:81"]).await;
    server.says(move |_| Reply::records([first.clone()]).additional(address()));
    following.sees(&["10.0.0.1:80"]).await;
    server.says(|_| Reply::nothing(0));
    following.sees(&[]).await;
}
