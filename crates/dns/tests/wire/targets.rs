use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use tower_sd_dns::{Family, Query};

use crate::{
    scene::{SERVICE, Settings},
    support::{Asked, NameServer, Reply, a, aaaa, srv},
};

const A: &str = "a.lab.test.";
const B: &str = "b.lab.test.";

/// Records of the targets A and B, without their addresses.
fn records() -> Reply {
    Reply::records([srv(SERVICE, 60, (0, 0, 80, A)), srv(SERVICE, 60, (0, 0, 81, B))])
}

/// T63.
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

/// T63.
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

/// T63, D6.
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

/// D6.
#[tokio::test]
async fn target_that_came_along_is_not_looked_up() {
    let server = NameServer::start(|asked| match (asked.name.as_str(), asked.kind) {
        // D18: in other letters.
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

/// A service of a thousand whose targets do not come along is not a thousand lookups every five seconds.
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

/// T64.
#[tokio::test]
async fn address_out_of_bailiwick_is_looked_up_instead() {
    const ELSEWHERE: &str = "a.elsewhere.example.";
    let server = NameServer::start(|asked| match (asked.name.as_str(), asked.kind) {
        (SERVICE, _) => Reply::records([srv(SERVICE, 60, (0, 0, 80, ELSEWHERE))])
            .additional(a(ELSEWHERE, 60, [6, 6, 6, 6]))
            .additional(a("unrelated.lab.test.", 60, [6, 6, 6, 7])),
        (ELSEWHERE, RecordType::A) => Reply::records([a(ELSEWHERE, 60, [10, 0, 0, 1])]),
        _ => Reply::nothing(60),
    })
    .await;
    let mut following = Settings::of([server.address]).start();
    following.sees(&["10.0.0.1:80"]).await;
}

#[tokio::test]
async fn host_with_both_families_is_one_instance_unless_both_are_wanted() {
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
