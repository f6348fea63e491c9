use super::*;
use crate::ConsulConfig;

fn checks(rows: &[(&str, &str, &str)]) -> Vec<u8> {
    let rows = rows.iter().map(|(id, service, status)| {
        serde_json::json!({"Node": "n", "CheckID": id, "Status": status, "ServiceName": service, "ServiceID": id})
    });
    serde_json::to_vec(&rows.collect::<Vec<_>>()).expect("serialises")
}

#[test]
fn the_difference_of_two_answers_names_the_services() {
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

fn wire() -> Wire {
    Wire::new(ConsulConfig::default()).expect("the default address is one")
}

#[tokio::test]
async fn it_runs_above_the_bound_and_is_asked_to_once() {
    let (hub, wire) = (Arc::new(Hub::new(2)), wire());
    let (a, starts_a) = hub.join("a", &wire.streams);
    let (b, starts_b) = hub.join("a", &wire.streams);
    let (c, starts_c) = hub.join("c", &wire.streams);
    let (d, starts_d) = hub.join("d", &wire.streams);
    assert_eq!([starts_a, starts_b, starts_c, starts_d], [false, false, true, false]);
    drop((a, b, c, d));
    assert!(hub.followed().services.is_empty());
    assert_eq!(*hub.n_followers.borrow(), 0);
}

#[tokio::test]
async fn a_change_while_a_read_is_under_way_is_not_lost() {
    let (hub, wire) = (Arc::new(Hub::new(0)), wire());
    let (mut ticket, _) = hub.join("Web", &wire.streams);
    hub.shared.send_replace(true);
    ticket.starts_to_read();
    hub.changed("web");
    timeout(Duration::from_secs(1), ticket.change()).await.expect("at once").expect("no failure");
    ticket.starts_to_read();
    let nothing = timeout(Duration::from_millis(20), ticket.change()).await;
    assert!(nothing.is_err(), "nothing has changed");
    let error = super::super::error::garbled("follow", "no leader");
    hub.failures.send_modify(|failures| failures[1] = Some(error));
    assert!(ticket.change().await.is_err());
}

/// HTTP/2 queries need no connections, so nobody has to share.
#[tokio::test]
async fn it_ends_when_queries_turn_out_to_be_streams() {
    let (hub, wire) = (Arc::new(Hub::new(0)), Arc::new(wire()));
    let (_a, starts) = hub.join("a", &wire.streams);
    assert!(starts, "as far as is known yet");
    wire.streams.heard(http::Version::HTTP_2);
    let tasks = tower_sd_core::Tasks::new();
    tasks.spawn(|stop| Arc::clone(&hub).run(Arc::clone(&wire), stop));
    let mut shared = hub.shared.subscribe();
    let alone = async {
        while hub.followed().running {
            shared.changed().await.expect("the hub lives");
        }
    };
    timeout(Duration::from_secs(1), alone).await.expect("it ends at once");
    let (_b, starts) = hub.join("b", &wire.streams);
    assert!(!starts, "two streams are few");
    tasks.close().await;
}
