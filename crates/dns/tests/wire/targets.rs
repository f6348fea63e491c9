use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use tower_sd_core::{Freshness, Snapshot};
use tower_sd_dns::{Family, Query};

use crate::{
    scene::{SERVICE, Settings, short_guard, shown},
    support::{Asked, NameServer, Reply, a, aaaa, srv},
};

const A: &str = "a.lab.test.";
const B: &str = "b.lab.test.";

/// Records of the targets A and B, without their addresses.
fn records() -> Reply {
    Reply::records([srv(SERVICE, 60, (0, 0, 80, A)), srv(SERVICE, 60, (0, 0, 81, B))])
}
#[tokio::test]
async fn target_with_one_family_is_used_while_the_other_fails() {
    let server = NameServer::start(|asked| match (asked.name.as_str(), asked.kind) {
        (SERVICE, _) => records(),
        (A, RecordType::A) => Reply::silence(),
        (A, _) => Reply::records([aaaa(A, 60, 1)]),
        _ => Reply::nothing(0).with_code(ResponseCode::NXDomain),
    })
    .await;
    let mut following = Settings::of([server.address]).start();
    let snapshot = following.sees(&["[fd00::1]:80"]).await;
    assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
    assert_eq!(following.subscription.stats().malformed, 1, "the other has no address");
}
#[tokio::test]
async fn target_that_cannot_be_looked_up_keeps_its_last_addresses() {
    let well = |asked: &Asked| match (asked.name.as_str(), asked.kind) {
        (SERVICE, _) => records(),
        (A, RecordType::A) => Reply::records([a(A, 0, [10, 0, 0, 1])]),
        (B, RecordType::A) => Reply::records([a(B, 0, [10, 0, 0, 2])]),
        _ => Reply::nothing(0),
    };
    let server = NameServer::start(well).await;
    let mut following = Settings::of([server.address]).start();
    following.sees(&["10.0.0.1:80", "10.0.0.2:81"]).await;
    server.says(|asked| match (asked.name.as_str(), asked.kind) {
        (SERVICE, _) => records(),
        (A, _) => Reply::code(ResponseCode::ServFail),
        (B, RecordType::A) => Reply::records([a(B, 0, [10, 0, 0, 3])]),
        _ => Reply::nothing(0),
    });
    let snapshot = following.sees(&["10.0.0.1:80", "10.0.0.3:81"]).await;
    assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
}
#[tokio::test]
async fn read_fails_when_no_target_can_be_looked_up() {
    let server = NameServer::start(|asked| match asked.name.as_str() {
        SERVICE => records(),
        _ => Reply::code(ResponseCode::ServFail),
    })
    .await;
    let mut following = Settings::of([server.address]).start();
    following.fails().await;
    assert!(!following.subscription.snapshot().freshness().is_synced());
}

fn is_stale(snapshot: &Snapshot) -> bool {
    matches!(snapshot.freshness(), Freshness::Stale { .. })
}

/// The set stays, but is not fresh.
#[tokio::test]
async fn set_is_stale_when_no_target_can_be_looked_up_any_more() {
    let server = NameServer::start(|asked| match (asked.name.as_str(), asked.kind) {
        (SERVICE, _) => records(),
        (A, RecordType::A) => Reply::records([a(A, 0, [10, 0, 0, 1])]),
        (B, RecordType::A) => Reply::records([a(B, 0, [10, 0, 0, 2])]),
        _ => Reply::nothing(0),
    })
    .await;
    let mut following = Settings::of([server.address]).start();
    following.sees(&["10.0.0.1:80", "10.0.0.2:81"]).await;
    server.says(|asked| match asked.name.as_str() {
        SERVICE => records(),
        _ => Reply::code(ResponseCode::ServFail),
    });
    let snapshot = following.sees_that("trouble", is_stale).await;
    assert_eq!(shown(&snapshot), ["10.0.0.1:80", "10.0.0.2:81"]);
    server.says(|asked| match (asked.name.as_str(), asked.kind) {
        (SERVICE, _) => records(),
        (A, RecordType::A) => Reply::code(ResponseCode::ServFail),
        (B, RecordType::A) => Reply::records([a(B, 0, [10, 0, 0, 3])]),
        _ => Reply::nothing(0),
    });
    let snapshot = following.sees(&["10.0.0.1:80", "10.0.0.3:81"]).await;
    assert!(snapshot.freshness().is_fresh(), "one is enough, and the other is kept");
}

/// The form without SRV.
#[tokio::test]
async fn host_that_cannot_be_looked_up_keeps_its_addresses_stale() {
    let failing = |_: &Asked| Reply::code(ResponseCode::ServFail);
    for family in [Family::Ipv4First, Family::Ipv6First, Family::Both] {
        let server = NameServer::start(failing).await;
        let query = Query::host(A, 80).expect("a name").family(family);
        let mut following = Settings::of([server.address]).query(query).start();
        following.fails().await;
        assert!(!following.subscription.snapshot().freshness().is_synced());
        server.says(|asked| match asked.kind {
            RecordType::A => Reply::records([a(A, 0, [10, 0, 0, 1])]),
            _ => Reply::nothing(0),
        });
        following.sees(&["10.0.0.1:80"]).await;
        server.says(failing);
        let snapshot = following.sees_that("trouble", is_stale).await;
        assert_eq!(shown(&snapshot), ["10.0.0.1:80"]);
    }
}

/// A missing AAAA record does not mean an empty set.
#[tokio::test]
async fn host_stays_when_one_family_fails_and_the_other_has_none() {
    let server = NameServer::start(|asked| match asked.kind {
        RecordType::A => Reply::code(ResponseCode::ServFail),
        _ => Reply::nothing(0),
    })
    .await;
    let query = Query::host(A, 80).expect("a name");
    let mut following = Settings::of([server.address]).query(query).start();
    following.fails().await;
    assert!(!following.subscription.snapshot().freshness().is_synced());
}

/// The other family's addresses are those of the same machine.
#[tokio::test]
async fn failing_family_keeps_its_addresses_while_the_other_answers() {
    let rows: [(Family, &[&str]); 2] =
        [(Family::Ipv4First, &["10.0.0.1:80"]), (Family::Both, &["10.0.0.1:80", "[fd00::2]:80"])];
    for (family, expected) in rows {
        let server = NameServer::start(|asked| match asked.kind {
            RecordType::A => Reply::records([a(A, 0, [10, 0, 0, 1])]),
            _ => Reply::records([aaaa(A, 0, 1)]),
        })
        .await;
        let query = Query::host(A, 80).expect("a name").family(family);
        let mut following = Settings::of([server.address]).query(query).start();
        following.sees_that("addresses", |it| !it.instances().is_empty()).await;
        server.says(|asked| match asked.kind {
            RecordType::A => Reply::code(ResponseCode::ServFail),
            _ => Reply::records([aaaa(A, 3600, 2)]),
        });
        server.is_asked_again(4).await;
        let snapshot = following.sees(expected).await;
        assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
    }
}

/// The hour of the others is no reason to be without it for an hour.
#[tokio::test]
async fn target_that_cannot_be_looked_up_is_queried_again_soon() {
    let records = || {
        Reply::records([srv(SERVICE, 3600, (0, 0, 80, A)), srv(SERVICE, 3600, (0, 0, 81, B))])
            .additional(a(A, 3600, [10, 0, 0, 1]))
    };
    let server = NameServer::start(move |asked| match asked.name.as_str() {
        SERVICE => records(),
        _ => Reply::code(ResponseCode::ServFail),
    })
    .await;
    let mut following = Settings::of([server.address]).start();
    following.sees(&["10.0.0.1:80"]).await;
    server.says(move |asked| match (asked.name.as_str(), asked.kind) {
        (SERVICE, _) => records(),
        (B, RecordType::A) => Reply::records([a(B, 3600, [10, 0, 0, 2])]),
        _ => Reply::nothing(3600),
    });
    following.sees(&["10.0.0.1:80", "10.0.0.2:81"]).await;
}

/// The loss guard's confirming read is answered by the servers, not from memory.
#[tokio::test]
async fn confirming_read_queries_every_target() {
    let zone = |n_records: usize| {
        move |asked: &Asked| match (asked.name.as_str(), asked.kind) {
            (SERVICE, _) => {
                let ports = (81..).take(n_records);
                Reply::records(ports.map(|port| srv(SERVICE, 0, (0, 0, port, A))))
            }
            (A, RecordType::A) => Reply::records([a(A, 3600, [10, 0, 0, 1])]),
            _ => Reply::nothing(3600),
        }
    };
    let server = NameServer::start(zone(3)).await;
    let mut settings = Settings::of([server.address]);
    settings.loss = short_guard();
    let mut following = settings.start();
    following.sees_that("three", |it| it.instances().len() == 3).await;
    server.is_asked_again(4).await;
    let n_asked = || server.asked().iter().filter(|it| it.name == A).count();
    assert_eq!(n_asked(), 1, "the address has an hour");
    server.says(zone(1));
    following.sees_that("a loss", |it| it.held().len() == 2).await;
    following.sees_that("it confirmed", |it| it.held().is_empty()).await;
    assert!(n_asked() > 1, "{:?}", server.asked());
}
#[tokio::test]
async fn nudge_queries_every_target() {
    let answers = |last| {
        move |asked: &Asked| match (asked.name.as_str(), asked.kind) {
            (SERVICE, _) => Reply::records([srv(SERVICE, 3600, (0, 0, 80, A))]),
            (A, RecordType::A) => Reply::records([a(A, 3600, [10, 0, 0, last])]),
            _ => Reply::nothing(0),
        }
    };
    let server = NameServer::start(answers(1)).await;
    let mut following = Settings::of([server.address]).start();
    following.sees(&["10.0.0.1:80"]).await;
    server.says(answers(2));
    following.subscription.refresh();
    following.sees(&["10.0.0.2:80"]).await;
}
#[tokio::test]
async fn target_that_came_along_is_not_looked_up() {
    let server = NameServer::start(|asked| match (asked.name.as_str(), asked.kind) {
        // In other letters.
        (SERVICE, _) => records().additional(a("A.LAB.test.", 60, [10, 0, 0, 1])),
        (B, RecordType::A) => Reply::records([a(B, 60, [10, 0, 0, 2])]),
        _ => Reply::nothing(60),
    })
    .await;
    let mut following = Settings::of([server.address]).start();
    following.sees(&["10.0.0.1:80", "10.0.0.2:81"]).await;
    let asked = server.asked();
    assert!(asked.iter().all(|asked| asked.name != A), "{asked:?}");
}

/// A service of a thousand whose targets do not come along is not a thousand lookups every five
/// seconds.
#[tokio::test]
async fn target_is_looked_up_again_when_its_ttl_has_passed() {
    let server = NameServer::start(|asked| match (asked.name.as_str(), asked.kind) {
        (SERVICE, _) => {
            Reply::records([srv(SERVICE, 0, (0, 0, 80, A)), srv(SERVICE, 0, (0, 0, 81, B))])
        }
        (A, RecordType::A) => Reply::records([a(A, 0, [10, 0, 0, 1])]),
        (B, RecordType::A) => Reply::records([a(B, 60, [10, 0, 0, 2])]),
        _ => Reply::nothing(0),
    })
    .await;
    let mut following = Settings::of([server.address]).start();
    following.sees(&["10.0.0.1:80", "10.0.0.2:81"]).await;
    server.is_asked_again(6).await;
    let n_asked = |name| server.asked().iter().filter(|asked| asked.name == name).count();
    assert!(n_asked(A) >= 3, "{:?}", server.asked());
    assert_eq!(n_asked(B), 1, "{:?}", server.asked());
}

/// A server of a name is trusted with its neighbours, two labels up; with a zone of one label
/// (`consul.`) only if it has it himself.
#[tokio::test]
async fn address_out_of_bailiwick_is_looked_up_instead() {
    let rows = [
        (SERVICE, "a.elsewhere.example.", false, false),
        (SERVICE, "a.elsewhere.example.", true, false),
        (SERVICE, "a.other.test.", false, false),
        (SERVICE, "a.other.lab.test.", false, true),
        ("web.service.consul.", "a.addr.consul.", false, false),
        ("web.service.consul.", "a.addr.consul.", true, true),
    ];
    for (name, target, authoritative, believed) in rows {
        let server = NameServer::start(move |asked| match asked.kind {
            RecordType::SRV => {
                let reply = Reply::records([srv(name, 60, (0, 0, 80, target))]).additional(a(
                    target,
                    60,
                    [6, 6, 6, 6],
                ));
                if authoritative { reply.authoritative() } else { reply }
            }
            RecordType::A => Reply::records([a(target, 60, [10, 0, 0, 1])]),
            _ => Reply::nothing(60),
        })
        .await;
        let query = Query::srv(name).expect("a name");
        let mut following = Settings::of([server.address]).query(query).start();
        following.sees(&[if believed { "6.6.6.6:80" } else { "10.0.0.1:80" }]).await;
    }
}

/// A server leaves other records out of a full response every time. The rest is used
/// when the rest cannot be looked up.
#[tokio::test]
async fn family_that_did_not_come_along_is_looked_up() {
    let rows: [(Family, &[&str]); 3] = [
        (Family::Ipv4First, &["10.0.0.1:80"]),
        (Family::Ipv6First, &["[fd00::1]:80"]),
        (Family::Both, &["10.0.0.1:80", "[fd00::1]:80"]),
    ];
    for (family, expected) in rows {
        let with_one =
            || Reply::records([srv(SERVICE, 0, (0, 0, 80, A))]).additional(aaaa(A, 60, 1));
        let server = NameServer::start(move |asked| match asked.kind {
            RecordType::A => Reply::records([a(A, 60, [10, 0, 0, 1])]),
            RecordType::AAAA => Reply::records([aaaa(A, 60, 1)]),
            _ => with_one(),
        })
        .await;
        let query = || Query::srv(SERVICE).expect("a name").family(family);
        let mut following = Settings::of([server.address]).query(query()).start();
        following.sees(expected).await;
        let looked_up = server.asked().iter().any(|asked| asked.kind != RecordType::SRV);
        assert_eq!(looked_up, family != Family::Ipv6First, "{:?}", server.asked());

        server.says(move |asked| match asked.kind {
            RecordType::SRV => with_one(),
            _ => Reply::code(ResponseCode::ServFail),
        });
        let mut following = Settings::of([server.address]).query(query()).start();
        let snapshot = following.sees(&["[fd00::1]:80"]).await;
        assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
    }
}

#[tokio::test]
async fn host_with_both_families_is_one_instance_by_default() {
    let rows: [(Family, &[&str]); 3] = [
        (Family::Ipv4First, &["10.0.0.1:80"]),
        (Family::Ipv6First, &["[fd00::1]:80"]),
        (Family::Both, &["10.0.0.1:80", "[fd00::1]:80"]),
    ];
    for (family, expected) in rows {
        let server = NameServer::start(|asked| match asked.kind {
            RecordType::A => Reply::records([a(A, 60, [10, 0, 0, 1])]),
            RecordType::AAAA => Reply::records([aaaa(A, 60, 1)]),
            _ => Reply::records([srv(SERVICE, 60, (0, 0, 80, A))])
                .additional(a(A, 60, [10, 0, 0, 1]))
                .additional(aaaa(A, 60, 1)),
        })
        .await;
        let host = Query::host(A, 80).expect("a name");
        for query in [host, Query::srv(SERVICE).expect("a name")] {
            let mut following = Settings::of([server.address]).query(query.family(family)).start();
            following.sees(expected).await;
        }
    }
}
