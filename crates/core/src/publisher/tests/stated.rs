//! Absences that the registry states, which the loss guard does not hold.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use super::*;
use crate::InstanceStatus;

fn stated(items: Vec<Instance>) -> Entries<Instance> {
    Entries { accepts_absences: true, ..Entries::new(items) }
}

#[tokio::test(start_paused = true)]
async fn absences_that_the_registry_states_are_not_held() {
    let mut driven = Driven::guarded();
    let state = |driven: &mut Driven, ids: &[u16]| {
        driven.publisher.set(stated(ids.iter().copied().map(instance).collect()));
    };
    driven.read(1..=5);
    state(&mut driven, &[1]);
    assert_eq!((driven.listed(), driven.held()), (vec![1], vec![]));
    // What was lost before is not stated by a later set.
    driven.read(1..=5);
    driven.read([]);
    driven.pass(s(1)).await;
    state(&mut driven, &[6]);
    assert_eq!((driven.listed(), driven.held().len()), (vec![6], 5));
}

#[tokio::test(start_paused = true)]
async fn held_unfit_instances_leave_when_the_registry_states_it() {
    let mut driven = Driven::guarded();
    let unfit = |id| instance(id).with_status(InstanceStatus::Draining);
    driven.read(1..=5);
    driven.set((1..=5).map(unfit).collect());
    driven.pass(s(1)).await;
    assert_eq!(driven.held().len(), 5);
    driven.publisher.set(stated(Vec::new()));
    assert_eq!((driven.listed(), driven.held()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn stated_absences_of_the_first_set_after_trouble_are_held() {
    let mut driven = Driven::guarded();
    driven.read(1..=5);
    driven.publisher.failed(unavailable("restored from a backup"));
    driven.publisher.set(stated(Vec::new()));
    driven.pass(s(1)).await;
    assert_eq!(driven.held().len(), 5);
}

/// The set was not taken: the next one, of another kind, must not be taken in its place.
#[tokio::test(start_paused = true)]
async fn panic_of_the_filter_ends_what_its_set_has_stated() {
    let panics = Arc::new(AtomicBool::new(false));
    let filter = Arc::clone(&panics);
    let publisher = Publisher::new("test", "s", RegistryConfig::default());
    let mut driven = Driven::of(publisher.wants(move |_| {
        assert!(!filter.load(SeqCst), "a bug of the user");
        true
    }));
    driven.read(1..=5);
    panics.store(true, SeqCst);
    let set = AssertUnwindSafe(|| driven.publisher.set(stated(vec![instance(6)])));
    catch_unwind(set).expect_err("the filter panics");
    panics.store(false, SeqCst);
    driven.read([]);
    driven.pass(s(1)).await;
    assert_eq!(driven.held(), [1, 2, 3, 4, 5]);
}
