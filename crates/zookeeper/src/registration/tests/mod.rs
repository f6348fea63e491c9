//! Creations whose answers are lost, at a server in memory that has one node.

mod server;

use std::time::Duration;

use tower_sd_core::Instance;

use self::server::{Fault, Scripted, announcer};
use super::*;
use crate::client::{CreateMode, Update};

/// Nothing is learned about a creation from a later one that was not sent.
#[tokio::test]
async fn creation_without_an_answer_is_withdrawn_after_an_outage() {
    let mut server = Scripted::start(Fault::Lose { has_effect: true }).await;
    server.announce(1).await.expect_err("the answer is lost");
    server.model().fault = Fault::Refuse;
    server.announce(1).await.expect_err("no connection");
    server.announcer.withdraw().await.expect_err("no connection");
    assert!(server.model().node.is_some());
    server.model().fault = Fault::None;
    server.withdraw().await;
    assert_eq!(server.model().node, None);
}

#[tokio::test]
async fn second_creation_with_other_data_is_withdrawn() {
    let mut server = Scripted::start(Fault::Lose { has_effect: false }).await;
    server.announce(1).await.expect_err("the answer is lost");
    server.model().fault = Fault::Lose { has_effect: true };
    while server.model().node.is_none() {
        server.announce(2).await.expect_err("the answer is lost");
    }
    server.model().fault = Fault::None;
    server.withdraw().await;
    assert_eq!(server.model().node, None);
}

#[tokio::test]
async fn creation_in_doubt_is_updated_to_other_data() {
    let mut server = Scripted::start(Fault::Lose { has_effect: true }).await;
    server.announce(1).await.expect_err("the answer is lost");
    server.model().fault = Fault::None;
    let written = loop {
        match server.announce(2).await {
            Ok(written) => break written,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    };
    assert!(matches!(written, Renewal::Renewed(_)), "{written:?}");
    assert_eq!(server.model().node.as_deref(), Some(&b"10.0.0.7:2"[..]));
}

/// The layout has no incarnation: the node of another handle of the session has the same data.
#[tokio::test]
async fn node_of_the_same_data_is_no_creation_of_ours() {
    let mut server = Scripted::start(Fault::None).await;
    server.model().node = Some(b"10.0.0.7:1".to_vec());
    server.announce(1).await.expect("it takes the place");
    assert_eq!(server.model().n_created, 1);
}

/// The predecessor has noticed its successor, which has the same session and the same data, and its
/// next creation is not answered.
#[tokio::test]
async fn node_that_was_judged_a_successors_never_becomes_ours() {
    for noticed in [Noticed::Renewing, Noticed::Updating, Noticed::Creating, Noticed::Waiting] {
        for port in [None, Some(1), Some(2)] {
            let mut server = Scripted::start(Fault::None).await;
            server.announce(1).await.expect("announced");
            // A successor's.
            server.model().n_created += 1;
            let is_taken = |it: &_| matches!(it, Renewal::Lost(LossReason::TakenOver { .. }));
            if noticed != Noticed::Updating {
                assert!(is_taken(&server.renew().await.expect("read")), "{noticed:?}");
            }
            if noticed == Noticed::Creating {
                server.model().n_created += 1;
                assert!(is_taken(&server.announce_again(1).await.expect("read")), "{noticed:?}");
            }
            if noticed == Noticed::Waiting {
                server.model().n_created += 1;
                server.waits_for_the_end().await;
            }
            server.model().fault = Fault::Lose { has_effect: false };
            server.announce_again(1).await.expect_err("the answer is lost");
            server.model().fault = Fault::None;
            if let Some(port) = port {
                let found = loop {
                    match server.announce_again(port).await {
                        Ok(found) => break found,
                        Err(error) => assert!(error.is_transient(), "{error:?}"),
                    }
                };
                assert!(is_taken(&found), "{noticed:?}, {port:?}: {found:?}");
            }
            server.withdraw().await;
            let left = server.model().node.clone();
            assert_eq!(left.as_deref(), Some(&b"10.0.0.7:1"[..]), "{noticed:?}, {port:?}");
        }
    }
}

/// When a predecessor has noticed its successor's node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Noticed {
    Renewing,
    /// In place of its own, before its data were to be written.
    Updating,
    /// Another successor's, in the way of its creation.
    Creating,
    /// Another successor's, while it waits for the end of the first one's.
    Waiting,
}

/// Whether the predecessor's creation had an effect is not known when its handle is dropped.
#[tokio::test]
async fn node_of_a_successor_is_not_left_behind_by_its_predecessor() {
    let mut server = Scripted::start(Fault::Lose { has_effect: false }).await;
    let client = server.announcer.client.clone();
    server.announce(1).await.expect_err("the answer is lost");
    server.model().fault = Fault::Refuse;
    server.announcer = announcer(&client);
    server.announce(1).await.expect_err("no connection");
    server.model().fault = Fault::None;
    while let Err(error) = server.announce(1).await {
        assert!(error.is_transient(), "{error:?}");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(server.model().node.is_some());
}

/// The session goes on for others.
#[tokio::test]
async fn node_is_withdrawn_when_its_successor_fails() {
    let mut server = Scripted::start(Fault::Lose { has_effect: true }).await;
    let client = server.announcer.client.clone();
    let _session = client.session();
    server.announce(1).await.expect_err("the answer is lost");
    server.model().fault = Fault::Refuse;
    server.announcer = announcer(&client);
    server.announce(1).await.expect_err("no connection");
    server.announcer = announcer(&client);
    server.model().fault = Fault::None;
    let removed = async {
        while server.model().node.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), removed).await.expect("it is removed");
}

/// The servers keep a session whose client has vanished, and its node.
#[tokio::test]
async fn node_is_withdrawn_when_the_runtime_of_its_session_has_ended() {
    let mut server = Scripted::start(Fault::None).await;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let client = server.announcer.client.clone();
    let first = runtime.spawn(async move { client.session() }).await.expect("a session");
    server.announce(1).await.expect("announced");
    runtime.shutdown_background();
    first.task_ended().await;
    server.withdraw().await;
    assert_eq!(server.model().node, None);
}

/// It needs no server.
#[tokio::test]
async fn data_above_the_limit_are_refused_without_a_connection() {
    let mut server = Scripted::start(Fault::Hang).await;
    let large = Instance::new("h".repeat(2 << 20), 1).with_id("a");
    let error = server.announcer.announce(&Announcement::new("s", large)).await;
    let error = error.expect_err("too large");
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Config, false), "{error:?}");
    assert!(error.is_without_effect(), "{error:?}");
}

/// Hundreds of processes may start while the servers are away.
#[tokio::test(start_paused = true)]
async fn connections_without_a_session_become_rare() {
    let server = Scripted::start(Fault::Refuse).await;
    let _session = server.announcer.client.session();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = server.model().n_connections;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let n = server.model().n_connections - before;
    assert!((10..=60).contains(&n), "{n} connections in 5 min");
}

#[tokio::test]
async fn server_of_reads_alone_and_one_with_sasl_are_refused_by_name() {
    for (fault, name) in [(Fault::ReadOnly, "read-only"), (Fault::Sasl, "SASL")] {
        let mut server = Scripted::start(fault).await;
        let error = server.announce(1).await.expect_err("refused");
        assert!(error.chain().to_string().contains(name), "{}", error.chain());
        assert_eq!(server.model().node, None);
    }
}

/// ClickHouse's Keeper has no session of a former connection, and reports no expiry.
#[tokio::test]
async fn session_in_place_of_another_ends_that_and_its_watches() {
    let mut server = Scripted::start(Fault::None).await;
    server.announce(1).await.expect("announced");
    let session = server.announcer.session();
    let watch = session.watch("/services/s");
    session.get_watched("/services/s/a").await.expect("it answers");
    {
        let mut model = server.model();
        (model.n_replaced, model.node) = (1, None);
        model.fault = Fault::Lose { has_effect: false };
    }
    let created = session.create("/services/t", &[], CreateMode::Persistent, Access::Open).await;
    created.expect_err("the connection breaks");
    server.model().fault = Fault::None;
    let ended = async { while !matches!(watch.next().await, Update::Ended) {} };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the watch ends");
    assert_eq!(server.announcer.lost().await, LossReason::SessionEnded);
    server.announce(1).await.expect("announced again");
    assert!(server.model().node.is_some());
}

/// A persistent node has the owner 0, as a session before the first one.
#[tokio::test]
async fn node_without_an_owner_is_not_ours_before_the_first_session() {
    let mut server = Scripted::start(Fault::Hang).await;
    server.announce(1).await.expect_err("no session");
    let announcer = &mut server.announcer;
    assert!(announcer.in_doubt.is_some());
    let session = announcer.session();
    assert!(announcer.is_ours(&session).is_none());
}
