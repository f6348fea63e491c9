//! Adapters to and from `tower::discover`.

use std::{pin::pin, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::mpsc;
use tower::{balance::p2c, discover::Change};
use tower_sd_balance::{BoxError, Endpointer, Instance};

use crate::support::{Client, Mode, Registry, World, answers, balance, call, endpointer, settle};

fn shown(change: Change<tower_sd_balance::InstanceId, Client>) -> String {
    match change {
        Change::Insert(id, _) => format!("+{id}"),
        Change::Remove(id) => format!("-{id}"),
    }
}

#[tokio::test(start_paused = true)]
async fn changes_start_with_everybody_and_follow() {
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

#[tokio::test(start_paused = true)]
async fn towers_own_balancer_takes_the_changes() {
    use tower::load::Load;
    #[derive(Clone)]
    struct Loaded(Client);
    impl Load for Loaded {
        type Metric = u32;
        fn load(&self) -> u32 {
            0
        }
    }
    impl tower::Service<u32> for Loaded {
        type Response = String;
        type Error = BoxError;
        type Future = <Client as tower::Service<u32>>::Future;
        fn poll_ready(
            &mut self,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), BoxError>> {
            self.0.poll_ready(cx)
        }
        fn call(&mut self, n: u32) -> Self::Future {
            self.0.call(n)
        }
    }
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let changes = endpointer.changes().map(|change| {
        change.map(|change| match change {
            Change::Insert(id, service) => Change::Insert(id, Loaded(service)),
            Change::Remove(id) => Change::Remove(id),
        })
    });
    let mut balance = p2c::Balance::new(Box::pin(changes));
    let ready = tower::ServiceExt::<u32>::ready(&mut balance).await.unwrap();
    assert_eq!(tower::Service::call(ready, 0).await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn any_discover_feeds_an_endpointer() {
    let (send, receive) = mpsc::unbounded_channel::<Result<Change<u16, Client>, BoxError>>();
    let changes = Box::pin(stream::unfold(receive, |mut receive| async move {
        Some((receive.recv().await?, receive))
    }));
    let endpointer = Endpointer::from_discover(changes, |port| Instance::new("h", *port));
    let world = World::default();
    let client = |host: &'static str| {
        let make = world.factory()(Instance::new(host, 1));
        async move { make.await.unwrap() }
    };
    send.send(Ok(Change::Insert(1, client("a").await))).unwrap();
    send.send(Ok(Change::Insert(2, client("b").await))).unwrap();
    settle().await;
    let balance = balance(&endpointer);
    let mut both = answers(&balance, 2).await;
    both.sort();
    assert_eq!(both, ["a", "b"]);
    send.send(Ok(Change::Insert(1, client("c").await))).unwrap();
    send.send(Ok(Change::Remove(2))).unwrap();
    settle().await;
    assert_eq!(answers(&balance, 2).await, ["c", "c"], "inserted again: replaced");
    assert_eq!((world.n_live("a"), world.n_live("b"), world.n_live("c")), (0, 0, 1));
    send.send(Err("lost".into())).unwrap();
    settle().await;
    assert!(endpointer.report().trouble.unwrap().contains("the discovery failed"));
    drop(send);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(answers(&balance, 1).await, ["c"], "the end keeps the set");
    drop((balance, endpointer));
    settle().await;
    assert_eq!(world.n_live_in_all(), 0);
}
