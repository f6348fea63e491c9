use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use tower_sd_core::{Instancer, Registry};
use tower_sd_dns::{Dns, Query};

use crate::{
    scene::{Following, SERVICE, Settings, one},
    support::{NameServer, Reply, a, cname, srv},
};
#[tokio::test]
async fn root_as_the_only_target_is_an_empty_set() {
    let server = NameServer::start(|_| Reply::records([srv(SERVICE, 0, (0, 0, 0, "."))])).await;
    let mut following = Settings::of([server.address]).start();
    assert!(following.sees(&[]).await.freshness().is_fresh());
}

#[tokio::test]
async fn record_with_port_zero_is_skipped_and_counted() {
    let server = NameServer::start(|_| {
        Reply::records([
            srv(SERVICE, 60, (0, 0, 0, "a.lab.test.")),
            srv(SERVICE, 60, (0, 0, 80, "a.lab.test.")),
        ])
        .additional(a("a.lab.test.", 60, [10, 0, 0, 1]))
    })
    .await;
    let mut following = Settings::of([server.address]).start();
    let snapshot = following.sees(&["10.0.0.1:80"]).await;
    assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
    assert_eq!(following.subscription.stats().malformed, 1);
}
#[tokio::test]
async fn alias_is_followed_within_the_answer() {
    let server = NameServer::start(|_| {
        Reply::records([
            cname(SERVICE, 60, "one.lab.test."),
            cname("one.lab.test.", 60, "two.lab.test."),
            srv("two.lab.test.", 60, (0, 0, 80, "a.lab.test.")),
        ])
        .additional(a("a.lab.test.", 60, [10, 0, 0, 1]))
    })
    .await;
    let mut following = Settings::of([server.address]).start();
    following.sees(&["10.0.0.1:80"]).await;
}

/// Of the query's name and of a target, which RFC 2782 forbids and zones have.
#[tokio::test]
async fn alias_is_followed_by_another_query() {
    let server = NameServer::start(|asked| match (asked.name.as_str(), asked.kind) {
        (SERVICE, _) => Reply::records([cname(SERVICE, 60, "web.lab.test.")]),
        ("web.lab.test.", _) => {
            Reply::records([srv("web.lab.test.", 60, (0, 0, 80, "a.lab.test."))])
        }
        ("a.lab.test.", _) => Reply::records([cname("a.lab.test.", 60, "b.lab.test.")]),
        ("b.lab.test.", RecordType::A) => Reply::records([a("b.lab.test.", 60, [10, 0, 0, 1])]),
        _ => Reply::nothing(60),
    })
    .await;
    let mut following = Settings::of([server.address]).start();
    let snapshot = following.sees(&["10.0.0.1:80"]).await;
    assert_eq!(snapshot.instances()[0].metadata()["dns-target"], "a.lab.test");
}
#[tokio::test]
async fn aliases_in_a_circle_are_an_error() {
    let circle =
        || [cname(SERVICE, 60, "web.lab.test."), cname("web.lab.test.", 60, SERVICE)].map(|it| it);
    let server = NameServer::start(move |_| Reply::records(circle())).await;
    let mut following = Settings::of([server.address]).start();
    let error = following.fails().await;
    assert!(error.contains("form a circle"), "{error}");

    server.says(|asked| {
        let [of_service, of_web] =
            [cname(SERVICE, 60, "web.lab.test."), cname("web.lab.test.", 60, SERVICE)];
        Reply::records([if asked.name == SERVICE { of_service } else { of_web }])
    });
    let mut following = Settings::of([server.address]).start();
    let error = following.fails().await;
    assert!(error.contains("leads through eight"), "{error}");
}

/// An alias of a name that is gone.
#[tokio::test]
async fn alias_of_nothing_is_an_empty_set() {
    let server = NameServer::start(|_| {
        Reply::records([cname(SERVICE, 60, "gone.lab.test.")]).with_code(ResponseCode::NXDomain)
    })
    .await;
    let mut following = Settings::of([server.address]).start();
    assert!(following.sees(&[]).await.freshness().is_fresh());
    assert!(server.asked().iter().all(|asked| asked.name == SERVICE), "it is gone");
}
#[tokio::test]
async fn letters_may_be_large_or_small() {
    let server =
        NameServer::start(|_| {
            Reply::records([srv("_WEB._tcp.Lab.Test.", 60, (0, 0, 80, "A.lab.TEST."))])
                .additional(a("a.LAB.test.", 60, [10, 0, 0, 1]))
        })
        .await;
    let query = Query::srv("_web._TCP.lab.test").expect("a name");
    let mut following = Settings::of([server.address]).query(query).start();
    let snapshot = following.sees(&["10.0.0.1:80"]).await;
    assert_eq!(snapshot.instances()[0].id().as_str(), "a.lab.test:80@10.0.0.1");
}

/// A complete name as it is written, over UDP with EDNS.
#[tokio::test]
async fn question_is_complete_and_has_its_buffer_size() {
    let server = NameServer::start(|_| one()).await;
    let query = Query::srv("_web._tcp.lab.test").expect("a name");
    let mut following = Settings::of([server.address]).query(query).start();
    following.sees(&["10.0.0.1:80"]).await;
    let asked = &server.asked()[0];
    assert_eq!((asked.name.as_str(), asked.kind), (SERVICE, RecordType::SRV));
    assert_eq!((asked.tcp, asked.room), (false, Some(1232)));
}

#[tokio::test]
async fn tcp_first_queries_over_tcp_only() {
    let server = NameServer::start(|_| one()).await;
    let mut following = Settings::of([server.address]).over_tcp().start();
    following.sees(&["10.0.0.1:80"]).await;
    server.is_asked_again(2).await;
    assert!(server.asked().iter().all(|asked| asked.tcp));
}

#[tokio::test]
async fn url_is_followed() {
    let server = NameServer::start(|_| one()).await;
    let url = format!("dns://{}?tcp=true&min=50ms", server.address);
    let registry = Registry::from(Dns::from_url(&url).expect("well formed"));
    let instancer = registry.instancer("_web._tcp.lab.test").expect("a name");
    let subscription = instancer.subscribe();
    let mut following = Following { instancer, subscription };
    following.sees(&["10.0.0.1:80"]).await;
    assert!(server.asked()[0].tcp);
}
