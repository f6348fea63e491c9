use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::{
    scene::{SERVICE, Settings},
    support::{Asked, NameServer, Reply, a, cname, srv},
};

/// A server whose record and address have these TTLs.
async fn server_with_ttls(of_record: u32, of_address: u32) -> NameServer {
    NameServer::start(move |_| {
        Reply::records([srv(SERVICE, of_record, (0, 0, 80, "a.lab.test."))]).additional(a(
            "a.lab.test.",
            of_address,
            [10, 0, 0, 1],
        ))
    })
    .await
}

/// The pauses between the first `n` questions.
async fn pauses(server: &NameServer, n: usize) -> Vec<Duration> {
    let wait = async {
        while server.asked().len() <= n {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("it is asked so often");
    let asked = server.asked();
    let pause = |pair: &[Asked]| pair[1].at - pair[0].at;
    asked[..=n].windows(2).map(pause).collect()
}

fn assert_within(pauses: &[Duration], least: f64, most: f64) {
    for pause in pauses {
        let seconds = pause.as_secs_f64();
        assert!((least..most).contains(&seconds), "{pauses:?} in {least}..{most}");
    }
}

/// T61.
#[tokio::test]
async fn ttl_zero_waits_for_the_least_interval() {
    for ttl in [0, 1 << 31, u32::MAX] {
        let server = server_with_ttls(ttl, 60).await;
        let mut settings = Settings::of([server.address]);
        settings.follow.min_refresh = Duration::from_millis(200);
        let _following = settings.start();
        assert_within(&pauses(&server, 3).await, 0.2, 0.4);
    }
}

/// T61.
#[tokio::test]
async fn ttl_of_ten_years_waits_for_the_longest_interval() {
    let server = server_with_ttls(315_360_000, 315_360_000).await;
    let mut settings = Settings::of([server.address]);
    settings.follow.max_refresh = Duration::from_millis(200);
    let _following = settings.start();
    assert_within(&pauses(&server, 3).await, 0.18, 0.4);
}

/// T61, and go-kit's D2: there, a fixed period ignored the TTL.
#[tokio::test]
async fn least_ttl_of_an_answer_counts() {
    for (of_record, of_address) in [(1, 3600), (3600, 1)] {
        let server = server_with_ttls(of_record, of_address).await;
        let _following = Settings::of([server.address]).start();
        assert_within(&pauses(&server, 1).await, 0.9, 1.3);
    }
}

/// D5.
#[tokio::test]
async fn ttl_of_an_alias_counts() {
    let server = NameServer::start(|_| {
        Reply::records([
            cname(SERVICE, 1, "web.lab.test."),
            srv("web.lab.test.", 3600, (0, 0, 80, "a.lab.test.")),
        ])
        .additional(a("a.lab.test.", 3600, [10, 0, 0, 1]))
    })
    .await;
    let _following = Settings::of([server.address]).start();
    assert_within(&pauses(&server, 1).await, 0.9, 1.3);
}

/// D14.
#[tokio::test]
async fn negative_ttl_is_that_of_the_soa() {
    let server = NameServer::start(|_| Reply::nothing(1)).await;
    let _following = Settings::of([server.address]).start();
    assert_within(&pauses(&server, 1).await, 0.9, 1.3);
}

#[tokio::test]
async fn refresh_looks_up_at_once_but_not_all_the_time() {
    let server = server_with_ttls(3600, 3600).await;
    let mut following = Settings::of([server.address]).start();
    following.sees(&["10.0.0.1:80"]).await;
    let start = Instant::now();
    following.subscription.refresh();
    server.is_asked_again(1).await;
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    for _ in 0..50 {
        following.subscription.refresh();
        sleep(Duration::from_millis(10)).await;
    }
    assert!(server.asked().len() <= 3, "{:?}", server.asked());
}
