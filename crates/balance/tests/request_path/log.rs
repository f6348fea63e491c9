//! What is logged about members.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tower::{Layer, ServiceExt};
use tower_sd_balance::{BalanceLayer, NoInstances, NoInstancesReason};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::{
    load::Wrong,
    support::{Mode, Registry, World, balance, call, endpointer, instances, settle},
};

/// The fields of each warning and error on this thread, the message and those of its spans among
/// them.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    spans: Vec<String>,
    entered: Vec<usize>,
}

impl Warnings {
    fn about(&self, part: &str) -> usize {
        self.0.lock().unwrap().lines.iter().filter(|fields| fields.contains(part)).count()
    }
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(String::new());
        span.record(&mut fields);
        let spans = &mut self.0.lock().unwrap().spans;
        spans.push(fields.0);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let log = &mut *self.0.lock().unwrap();
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        log.entered.iter().for_each(|id| fields.0 += &log.spans[*id - 1]);
        log.lines.push(fields.0);
    }

    fn enter(&self, id: &Id) {
        self.0.lock().unwrap().entered.push(usize::try_from(id.into_u64()).unwrap());
    }

    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().entered.pop();
    }
}

#[tokio::test(start_paused = true)]
async fn weight_out_of_range_is_logged_once_and_when_it_changes() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let _endpointer = endpointer(&registry, &world).await;
    let steps = [(1_000_000, 0), (1_000_001, 1), (1_000_001, 1), (7_000_000, 2), (1, 2)];
    for (n, (weight, n_logged)) in steps.into_iter().enumerate() {
        let a = instances(&["a"]).remove(0).with_weight(weight);
        registry.set_instances(vec![a.with_metadata("n", n.to_string())]).await;
        assert_eq!(warnings.about("weight out of range"), n_logged, "{weight}");
    }
    let heavy = instances(&["a", "b"]).remove(1).with_weight(2_000_000);
    registry.set_instances(vec![heavy]).await;
    assert_eq!(warnings.about("instance=b:1 weight=2000000 service=\"test\""), 1, "of a new one");
}

#[tokio::test(start_paused = true)]
async fn panic_is_logged_once() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let (mut registry, world) = (Registry::new(&["a", "b"]), World::default());
    let client = balance(&endpointer(&registry, &world).await);
    world.answer("a", Mode::Fails);
    for _ in 0..10 {
        let _result = call(&client).await;
        settle().await;
    }
    assert_eq!(warnings.about("ejected ones get requests"), 0);
    world.ready("b", Mode::Fails);
    for _ in 0..3 {
        call(&client).await.unwrap_err();
        settle().await;
    }
    registry.set(&["a", "b"]).await;
    assert_eq!(warnings.about("ejected ones get requests"), 1);
}

#[tokio::test(start_paused = true)]
async fn index_out_of_range_is_logged_once_with_the_service() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let client = BalanceLayer::new(Wrong).layer(endpointer(&registry, &world).await);
    for _ in 0..3 {
        let error = client.clone().oneshot(0).await.expect_err("no such member");
        let none: &NoInstances = error.downcast_ref().expect("no instances");
        assert_eq!(none.reason(), NoInstancesReason::OutOfRange);
    }
    assert_eq!(warnings.about("index out of range"), 1);
    assert_eq!(warnings.about("service=\"test\" balancer=Wrong"), 1);
}
