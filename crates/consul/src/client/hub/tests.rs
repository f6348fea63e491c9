use std::time::Duration;

use http::Version;
use tokio::time::timeout;

use super::{checks::Checks, polls::filter, *};
use crate::ConsulConfig;

fn checks(rows: &[(&str, &str, &str)]) -> Vec<u8> {
    let rows = rows.iter().map(|(id, service, status)| {
        serde_json::json!({"Node": "n", "CheckID": id, "Status": status, "ServiceName": service, "ServiceID": id})
    });
    serde_json::to_vec(&rows.collect::<Vec<_>>()).expect("serialises")
}

#[test]
fn difference_of_two_answers_names_the_services() {
    let mut known = Checks::default();
    let serf = ("serfHealth", "", "passing");
    let first = [serf, ("a", "Web", "passing"), ("b", "api", "passing")];
    assert_eq!(known.read(&checks(&first)), None, "nothing to compare with");
    let turned = [("b", "api", "passing"), serf, ("a", "Web", "passing")];
    assert_eq!(known.read(&checks(&turned)), Some(vec![]), "order is no change");
    let failing = [serf, ("a", "Web", "critical"), ("b", "api", "passing")];
    assert_eq!(known.read(&checks(&failing)), Some(vec!["web".to_owned()]));
    assert_eq!(known.read(&checks(&failing[..2])), Some(vec!["api".to_owned()]));
    let dead = [("serfHealth", "", "critical"), ("a", "Web", "critical")];
    assert_eq!(known.read(&checks(&dead)), None, "a node concerns all");
    assert_eq!(known.read(b"<html>"), None, "not understood");
}

fn sharing(follow_alone: usize) -> Arc<Sharing> {
    let config = ConsulConfig::default().max_blocking_queries(follow_alone);
    let wire = Wire::new(config).expect("the default address is one");
    Sharing::new(Arc::new(wire), TaskGroup::new())
}

#[tokio::test]
async fn followers_share_above_the_bound_until_half_of_them_left() {
    let sharing = sharing(2);
    let join = |service| sharing.join(Some(service));
    let (a, b) = (join("a"), sharing.join(None));
    assert!(!a.is_shared());
    let (c, d) = (join("A"), join("d"));
    assert!(a.is_shared() && d.is_shared());
    assert_eq!(sharing.followers.followed().services["a"].n_followers, 2);
    drop((a, b));
    assert!(c.is_shared(), "two are left, more than half of the bound");
    drop(d);
    assert!(!c.is_shared());
    drop(c);
    assert!(sharing.followers.followed().services.is_empty());
}

#[tokio::test]
async fn change_during_a_read_is_not_lost() {
    let sharing = sharing(0);
    let mut ticket = sharing.join(Some("Web"));
    ticket.starts_to_read();
    sharing.followers.changed("web");
    timeout(Duration::from_secs(1), ticket.change()).await.expect("known").expect("no failure");
    ticket.starts_to_read();
    let board = Arc::clone(ticket.attached.as_ref().expect("it waited").handle());
    board.failures.send_replace(BTreeMap::new());
    let nothing = timeout(Duration::from_millis(5), ticket.changes.changed()).await;
    assert!(nothing.is_err(), "nothing has changed");
    let error = crate::error::garbled("follow", "no leader");
    board.failures.send_modify(|failures| drop(failures.insert(1, error)));
    assert!(ticket.change().await.is_err());
}

/// A client in a static outlives the runtime of a test.
#[test]
fn followers_outlive_the_runtime_of_the_shared_task() {
    let sharing = sharing(0);
    let mut ticket = sharing.join(Some("web"));
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let first = runtime();
    first.block_on(async {
        let _waits = timeout(Duration::from_millis(1), ticket.change()).await;
    });
    drop(first);
    assert!(ticket.attached.as_ref().expect("it waited").has_ended());
    runtime().block_on(async {
        let _waits = timeout(Duration::from_millis(1), ticket.change()).await;
        assert!(!ticket.attached.as_ref().expect("it waits").has_ended(), "another task");
    });
}

/// HTTP/2 queries need no connections.
#[tokio::test]
async fn followers_are_alone_once_queries_turn_out_to_be_streams() {
    let sharing = sharing(0);
    let mut ticket = sharing.join(Some("a"));
    assert!(ticket.is_shared(), "as far as is known yet");
    sharing.followers.wire.streams.heard(Version::HTTP_2);
    sharing.followers.decide();
    assert!(!ticket.is_shared());
    ticket.change().await.expect("it goes on with its own query");
}

#[test]
fn filter_selects_services_and_nodes_and_cannot_be_left() {
    let status = "Status != `passing` and";
    assert_eq!(filter(&[]), format!("{status} ServiceName == ``"));
    let names = filter(&["web", "a.b`(c"]);
    assert_eq!(names, format!("{status} ServiceName matches `^(?i:web|a\\.b.\\(c)$`"));
}
