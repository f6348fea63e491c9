//! The adapter to `tower::discover`.

use std::{pin::pin, time::Duration};

use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;
use tower::{Service, ServiceExt, balance::p2c, discover::Change, load::Constant};

use crate::support::{Mode, Registry, World, balance, call, endpointer};

fn shown<S>(change: Change<tower_sd_balance::InstanceId, S>) -> String {
    match change {
        Change::Insert(id, _) => format!("+{id}"),
        Change::Remove(id) => format!("-{id}"),
    }
}

#[tokio::test(start_paused = true)]
async fn changes_start_with_all_members_and_follow() {
    let (mut registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let mut changes = pin!(endpointer.changes().map(|change| shown(change.unwrap())));
    let mut first = [changes.next().await.unwrap(), changes.next().await.unwrap()];
    first.sort();
    assert_eq!(first, ["+a:1", "+b:1"]);
    assert!(changes.next().now_or_never().is_none());
    registry.set(&["b", "c"]).await;
    assert_eq!(changes.next().await.unwrap(), "-a:1");
    assert_eq!(changes.next().await.unwrap(), "+c:1");
    assert!(changes.next().now_or_never().is_none());
    world.ready("b", Mode::Fails);
    let _down = call(&balance(&endpointer)).await;
    assert!(changes.next().now_or_never().is_none(), "down is not gone");
}

/// One whose readiness fails is evicted by tower, and announced again when it has connected.
#[tokio::test(start_paused = true)]
async fn failed_endpoint_comes_back_under_towers_p2c() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let changes = endpointer.changes().map(|change| {
        change.map(|change| match change {
            Change::Insert(id, service) => Change::Insert(id, Constant::new(service, 0)),
            Change::Remove(id) => Change::Remove(id),
        })
    });
    let mut balance = p2c::Balance::new(Box::pin(changes));
    let answer = balance.ready().await.unwrap().call(0).await.unwrap();
    assert_eq!(answer, "a");
    world.ready("a", Mode::Fails);
    let late = Duration::from_secs(1);
    assert!(timeout(late, ServiceExt::<u32>::ready(&mut balance)).await.is_err(), "evicted");
    world.ready("a", Mode::Works);
    let answer = async { balance.ready().await.unwrap().call(0).await.unwrap() };
    assert_eq!(timeout(Duration::from_secs(11), answer).await.unwrap(), "a");
}
