use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    scene::{SERVICE, Settings},
    support::{Asked, NameServer, Reply, a, cname, soa, srv},
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

/// Over TCP, and with time: on a busy machine nothing is repeated that would look like one question
/// too many.
fn patient(servers: impl IntoIterator<Item = SocketAddr>) -> Settings {
    let mut settings = Settings::of(servers).over_tcp();
    settings.dns = settings.dns.timeout(Duration::from_secs(10));
    settings
}

/// The pauses between the first `n` questions.
async fn pauses(server: &NameServer, n: usize) -> Vec<Duration> {
    let wait = async {
        while server.asked().len() <= n {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("so many questions");
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
#[tokio::test]
async fn ttl_zero_waits_for_the_least_interval() {
    for ttl in [0, 1 << 31, u32::MAX] {
        let server = server_with_ttls(ttl, 60).await;
        let mut settings = patient([server.address]);
        settings.follow.min_refresh = Duration::from_millis(200);
        let _following = settings.start();
        assert_within(&pauses(&server, 3).await, 0.2, 2.0);
    }
}
#[tokio::test]
async fn ttl_of_ten_years_waits_for_the_longest_interval() {
    let server = server_with_ttls(315_360_000, 315_360_000).await;
    let mut settings = patient([server.address]);
    settings.follow.max_refresh = Duration::from_millis(200);
    let _following = settings.start();
    assert_within(&pauses(&server, 3).await, 0.18, 2.0);
}
#[tokio::test]
async fn least_ttl_of_an_answer_counts() {
    for (of_record, of_address) in [(1, 3600), (3600, 1)] {
        let server = server_with_ttls(of_record, of_address).await;
        let _following = patient([server.address]).start();
        assert_within(&pauses(&server, 1).await, 0.9, 3.0);
    }
}
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
    let _following = patient([server.address]).start();
    assert_within(&pauses(&server, 1).await, 0.9, 3.0);
}

/// Unrelated records must not set the pace.
#[tokio::test]
async fn ttl_of_an_unrelated_address_does_not_count() {
    let server = NameServer::start(|_| {
        Reply::records([srv(SERVICE, 3600, (0, 0, 80, "a.lab.test."))])
            .additional(a("a.lab.test.", 3600, [10, 0, 0, 1]))
            .additional(a("b.lab.test.", 0, [10, 0, 0, 2]))
    })
    .await;
    let mut following = patient([server.address]).start();
    following.sees(&["10.0.0.1:80"]).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(server.asked().len(), 1);
}

/// The cache that expires first may have the news first.
#[tokio::test]
async fn least_negative_ttl_of_the_servers_counts() {
    let first = NameServer::start(|_| Reply::nothing(3600)).await;
    let second = NameServer::start(|_| Reply::nothing(1)).await;
    let _following = patient([first.address, second.address]).start();
    assert_within(&pauses(&first, 1).await, 0.9, 3.0);
}

/// Also of one that takes a query of its own.
#[tokio::test]
async fn ttl_of_an_alias_counts_when_its_target_is_queried() {
    for (of_alias, of_record) in [(1, 3600), (3600, 1)] {
        let server = NameServer::start(move |asked| match asked.name.as_str() {
            SERVICE => Reply::records([cname(SERVICE, of_alias, "web.lab.test.")]),
            _ => Reply::records([srv("web.lab.test.", of_record, (0, 0, 80, "a.lab.test."))])
                .additional(a("a.lab.test.", 3600, [10, 0, 0, 1])),
        })
        .await;
        let _following = patient([server.address]).start();
        assert_within(&pauses(&server, 2).await[1..], 0.9, 3.0);
    }
}

/// Also of one whose target has no records.
#[tokio::test]
async fn ttl_of_an_alias_counts_when_there_is_nothing_behind_it() {
    let server = NameServer::start(|asked| match asked.name.as_str() {
        SERVICE => Reply::records([cname(SERVICE, 1, "web.lab.test.")]),
        _ => Reply::nothing(3600),
    })
    .await;
    let _following = patient([server.address]).start();
    assert_within(&pauses(&server, 2).await[1..], 0.9, 3.0);
}

/// RFC 2308 §5: the lesser of the SOA's own TTL and its MINIMUM; also at the end of an alias.
#[tokio::test]
async fn negative_ttl_is_that_of_the_soa() {
    let alias = || cname(SERVICE, 3600, "gone.lab.test.");
    let rows = [
        Reply::default().authority(soa(3600, 1)),
        Reply::default().authority(soa(1, 3600)),
        Reply::records([alias()]).authority(soa(3600, 1)),
        Reply::records([alias()]).authority(soa(1, 3600)),
        Reply::records([cname(SERVICE, 1, "gone.lab.test.")]).authority(soa(3600, 3600)),
    ];
    let pause = async |reply: Reply| {
        let server = NameServer::start(move |_| reply.clone()).await;
        let _following = patient([server.address]).start();
        assert_within(&pauses(&server, 1).await, 0.9, 3.0);
    };
    join_all(rows.map(pause)).await;
}

/// Neither for the name nor for a target whose address does not come along, whatever fails in
/// between.
#[tokio::test]
async fn ttl_zero_is_one_question_per_least_interval_at_most() {
    let mut n = 0;
    let server = NameServer::start(move |asked| match (asked.name.as_str(), asked.kind) {
        (SERVICE, _) => Reply::records([srv(SERVICE, 0, (0, 0, 80, "a.lab.test."))]),
        (_, RecordType::A) => {
            n += 1;
            match n % 3 {
                0 => Reply::code(ResponseCode::ServFail),
                _ => Reply::records([a("a.lab.test.", 0, [10, 0, 0, 1])]),
            }
        }
        _ => Reply::nothing(0),
    })
    .await;
    let mut settings = patient([server.address]);
    settings.follow.min_refresh = Duration::from_millis(100);
    let start = Instant::now();
    let _following = settings.start();
    sleep(Duration::from_millis(2050)).await;
    let intervals = usize::try_from(start.elapsed().as_millis() / 100).expect("a few");
    for (name, kind) in [(SERVICE, RecordType::SRV), ("a.lab.test.", RecordType::A)] {
        let asked = server.asked();
        let n = asked.iter().filter(|it| it.name == name && it.kind == kind).count();
        assert!((4..=intervals + 1).contains(&n), "{name} {n} times in {intervals} intervals");
    }
}

#[tokio::test]
async fn refresh_is_immediate_but_limited() {
    let server = server_with_ttls(3600, 3600).await;
    let mut following = patient([server.address]).start();
    following.sees(&["10.0.0.1:80"]).await;
    let start = Instant::now();
    following.subscription.refresh();
    server.is_asked_again(1).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    for _ in 0..50 {
        following.subscription.refresh();
        sleep(Duration::from_millis(10)).await;
    }
    // The first, the one above, and one more each second.
    let most = usize::try_from(start.elapsed().as_secs()).expect("a few") + 3;
    assert!(server.asked().len() <= most, "{:?}", server.asked());
}
