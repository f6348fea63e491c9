//! Absences that the registry states, which the loss guard does not hold.

use super::*;
use crate::InstanceStatus;

#[tokio::test(start_paused = true)]
async fn absences_that_the_registry_states_are_not_held() {
    let mut driven = Driven::guarded();
    let state = |driven: &mut Driven, ids: &[u16]| {
        let entries = Entries::new(ids.iter().copied().map(instance).collect());
        driven.publisher.set(entries.with_accepted_absences(true));
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
    driven.publisher.set(Entries::new(Vec::new()).with_accepted_absences(true));
    assert_eq!((driven.listed(), driven.held()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn stated_absences_of_the_first_set_after_trouble_are_held() {
    let mut driven = Driven::guarded();
    driven.read(1..=5);
    driven.publisher.failed(unavailable("restored from a backup"));
    driven.publisher.set(Entries::new(Vec::new()).with_accepted_absences(true));
    driven.pass(s(1)).await;
    assert_eq!(driven.held().len(), 5);
}
