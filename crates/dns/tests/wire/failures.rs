use std::{collections::HashSet, time::Duration};

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{RData, Record, RecordType, rdata::NS},
};
use tower_sd_core::{ErrorKind, Freshness, Instancer, RegistryConfig};
use tower_sd_dns::{Dns, Query};

use crate::{
    scene::{SERVICE, Settings, one, one_is_seen, short_guard, shown},
    support::{NameServer, Reply, a, name, srv},
};

async fn set_is_kept_while_the_server_says(reply: Reply, kind: ErrorKind) {
    let (server, mut following) = one_is_seen().await;
    server.says(move |_| reply.clone());
    let snapshot =
        following.sees_that("a failure", |snapshot| snapshot.freshness().error().is_some()).await;
    assert_eq!(shown(&snapshot), ["10.0.0.1:80"]);
    assert!(matches!(snapshot.freshness(), Freshness::Stale { error, .. } if error.kind() == kind));
    server.is_asked_again(3).await;
    assert_eq!(shown(&following.subscription.snapshot()), ["10.0.0.1:80"]);
    server.says(|_| one());
    let snapshot = following.sees_that("freshness", |it| it.freshness().is_fresh()).await;
    assert_eq!(shown(&snapshot), ["10.0.0.1:80"]);
}
#[tokio::test]
async fn set_is_kept_on_servfail() {
    let reply = Reply::code(ResponseCode::ServFail);
    set_is_kept_while_the_server_says(reply, ErrorKind::Unavailable).await;
}
#[tokio::test]
async fn set_is_kept_on_refused() {
    let reply = Reply::code(ResponseCode::Refused);
    set_is_kept_while_the_server_says(reply, ErrorKind::Denied).await;
}
#[tokio::test]
async fn set_is_kept_on_notimp_and_formerr() {
    for code in [ResponseCode::NotImp, ResponseCode::FormErr] {
        set_is_kept_while_the_server_says(Reply::code(code), ErrorKind::Protocol).await;
    }
}
#[tokio::test]
async fn set_is_kept_on_silence() {
    set_is_kept_while_the_server_says(Reply::silence(), ErrorKind::Timeout).await;
}

/// A server that does not recurse, queried for a foreign zone.
#[tokio::test]
async fn set_is_kept_when_the_server_only_refers_to_others() {
    let ns = Record::from_rdata(name("lab.test."), 60, RData::NS(NS(name("ns.lab.test."))));
    let reply = Reply::default().authority(ns);
    set_is_kept_while_the_server_says(reply, ErrorKind::Unavailable).await;
}
async fn set_is_held_then_empty_when_the_server_says(reply: Reply) {
    let server = NameServer::start(|_| one()).await;
    let mut settings = Settings::of([server.address]);
    settings.loss = short_guard();
    let mut following = settings.start();
    following.sees(&["10.0.0.1:80"]).await;
    let said = reply.clone();
    server.says(move |_| said.clone());
    let is_held = |n| {
        move |snapshot: &tower_sd_core::Snapshot| {
            snapshot.instances().is_empty() && snapshot.held().len() == n
        }
    };
    let snapshot = following.sees_that("held", is_held(1)).await;
    assert!(snapshot.freshness().is_fresh(), "it is an answer: {snapshot:?}");

    server.says(|_| one());
    let snapshot = following.sees(&["10.0.0.1:80"]).await;
    assert!(snapshot.held().is_empty(), "cancelled: {snapshot:?}");

    server.says(move |_| reply.clone());
    following.sees_that("held again", is_held(1)).await;
    following.sees_that("empty", is_held(0)).await;
}
#[tokio::test]
async fn name_that_is_gone_empties_the_set_after_a_grace() {
    let reply = Reply::nothing(0).with_code(ResponseCode::NXDomain);
    set_is_held_then_empty_when_the_server_says(reply).await;
}
#[tokio::test]
async fn name_without_services_empties_the_set_after_a_grace() {
    set_is_held_then_empty_when_the_server_says(Reply::nothing(0)).await;
}

/// Without a SOA, as from old versions of Consul.
#[tokio::test]
async fn negative_answer_without_a_soa_is_accepted() {
    let server = NameServer::start(|_| Reply::code(ResponseCode::NXDomain)).await;
    let mut following = Settings::of([server.address]).start();
    assert!(following.sees(&[]).await.freshness().is_fresh());
}
#[tokio::test]
async fn truncated_answer_is_queried_again_over_tcp() {
    let server = NameServer::start(|asked| match asked.tcp {
        false => one().truncated(),
        true => Reply::records((1..=40).map(|n| srv(SERVICE, 60, (0, 0, n, "a.lab.test."))))
            .additional(a("a.lab.test.", 60, [10, 0, 0, 1])),
    })
    .await;
    let mut following = Settings::of([server.address]).start();
    following.sees_that("40", |snapshot| snapshot.instances().len() == 40).await;
}
#[tokio::test]
async fn answer_truncated_over_tcp_is_an_error() {
    let server = NameServer::start(|_| one().truncated()).await;
    let mut following = Settings::of([server.address]).start();
    let error = following.fails().await;
    assert!(error.contains("truncated even over TCP"), "{error}");
    assert!(following.subscription.snapshot().instances().is_empty());
}
#[tokio::test]
async fn forged_answer_is_ignored() {
    let forged = || {
        Reply::records([srv(SERVICE, 60, (0, 0, 666, "a.lab.test."))]).additional(a(
            "a.lab.test.",
            60,
            [6, 6, 6, 6],
        ))
    };
    let server = NameServer::start(move |_| one().after_a_forged(forged())).await;
    let mut following = Settings::of([server.address]).start();
    following.sees(&["10.0.0.1:80"]).await;
}

/// Over UDP the response is ignored; the one over TCP, which follows, is an error.
#[tokio::test]
async fn answer_to_another_question_is_ignored() {
    let questions = [("_x._tcp.lab.test.", RecordType::SRV), (SERVICE, RecordType::A)];
    for (name, kind) in questions {
        for reply in [one(), Reply::nothing(0), Reply::code(ResponseCode::NXDomain)] {
            let reply = reply.with_question(name, kind);
            for over_tcp in [false, true] {
                let said = reply.clone();
                let server = NameServer::start(move |_| said.clone()).await;
                let settings = Settings::of([server.address]);
                let settings = if over_tcp { settings.over_tcp() } else { settings };
                let mut following = settings.start();
                let error = following.fails().await;
                assert!(error.contains("is to another question"), "{error}");
                assert!(!following.subscription.snapshot().freshness().is_synced());
            }
        }
    }
}
#[tokio::test]
async fn set_is_kept_when_the_answer_is_about_something_else() {
    let other = srv("_x._tcp.lab.test.", 60, (0, 0, 666, "a.lab.test."));
    let reply = Reply::records([other]).additional(a("a.lab.test.", 60, [6, 6, 6, 6]));
    set_is_kept_while_the_server_says(reply, ErrorKind::Protocol).await;
}
#[tokio::test]
async fn set_is_empty_only_when_all_servers_agree() {
    let none = || Reply::nothing(0).with_code(ResponseCode::NXDomain);
    let first = NameServer::start(move |_| none()).await;
    let second = NameServer::start(|_| Reply::code(ResponseCode::ServFail)).await;
    let mut following = Settings::of([first.address, second.address]).start();
    let error = following.fails().await;
    assert!(error.contains("Server Failure"), "{error}");
    assert!(!following.subscription.snapshot().freshness().is_synced());

    second.says(|_| one());
    following.sees(&["10.0.0.1:80"]).await;
    second.says(move |_| none());
    following.sees(&[]).await;
}

/// Each of many names loses the time of one answer to it, not that of all queries before.
#[tokio::test]
async fn silent_server_delays_no_query_to_others() {
    let silent = NameServer::start(|_| Reply::silence()).await;
    let knows =
        NameServer::start(|asked| Reply::records([a(&asked.name, 60, [10, 0, 0, 1])])).await;
    let settings = Settings::of([silent.address, knows.address]);
    let registry = RegistryConfig::default().loss(settings.loss).follow(settings.follow);
    let dns = settings.dns.timeout(Duration::from_secs(2)).registry(registry);
    let client = Dns::new(dns);
    let follow = |n| {
        let query = Query::host(&format!("n{n}.lab.test"), 80).expect("a name");
        client.instancer(query).subscribe()
    };
    let subscriptions: Vec<_> = (0..100).map(follow).collect();
    for mut subscription in subscriptions {
        subscription.ready(Duration::from_secs(10)).await.expect("the other one answers");
    }
    let names: HashSet<_> = silent.asked().into_iter().map(|asked| asked.name).collect();
    assert!(names.len() <= 64, "{} names have waited for their turn there", names.len());
}

/// hickory#3837: a connection that leads nowhere, without a close, is left for a new one.
#[tokio::test]
async fn connection_that_leads_nowhere_is_left() {
    let server = NameServer::start(|_| one()).await;
    let mut following = Settings::of([server.address]).over_tcp().start();
    following.sees(&["10.0.0.1:80"]).await;
    server.forgets_its_connections();
    following.fails().await;
    let fresh = following.sees_that("freshness", |snapshot| snapshot.freshness().is_fresh());
    assert_eq!(shown(&fresh.await), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn close_ends_the_lookups() {
    let (server, following) = one_is_seen().await;
    following.instancer.close().await;
    let n_asked = server.asked().len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.asked().len(), n_asked);
}
