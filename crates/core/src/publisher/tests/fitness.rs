//! The guard and the deduplication count what accepts requests.

use super::*;
use crate::InstanceStatus::{self, Critical, Draining, Passing};

fn with(port: u16, status: InstanceStatus) -> Instance {
    instance(port).with_status(status)
}

fn all(ports: impl IntoIterator<Item = u16>, status: InstanceStatus) -> Vec<Instance> {
    ports.into_iter().map(|port| with(port, status)).collect()
}

/// What a query for passing instances shows.
fn passing() -> Driven {
    let publisher = Publisher::new("test", "s", RegistryConfig::default());
    Driven::of(publisher.wants(|instance| instance.status() == Passing))
}

fn without(change: impl FnOnce(&mut LossGuard)) -> Driven {
    let mut guard = LossGuard::default();
    change(&mut guard);
    Driven::new(RegistryConfig::default().loss(LossPolicy::Guard(guard)))
}

#[tokio::test(start_paused = true)]
async fn mass_loss_by_status_is_held_and_published_when_confirmed() {
    let mut driven = Driven::guarded();
    driven.read(1..=10);
    driven.set(all(1..=10, Critical));
    assert_eq!(driven.listed().len(), 10, "waits for what follows");
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed().len(), driven.held().len()), (0, 10));
    let held = driven.subscription.snapshot();
    assert!(held.held().iter().all(Instance::accepts_requests), "as they were");
    assert_eq!(driven.publisher.stats().suppressed, 1);
    driven.pass(s(125)).await;
    assert_eq!(driven.n_confirms, 2);
    driven.set(all(1..=10, Critical));
    assert_eq!(driven.held().len(), 10, "not without a confirming read");
    driven.publisher.set(Entries::new(all(1..=10, Critical)).with_mode(ReadMode::Confirm));
    let after = driven.subscription.snapshot();
    assert_eq!((after.instances().len(), after.held().len()), (10, 0));
    assert!(after.instances().iter().all(|instance| instance.status() == Critical));
}

#[tokio::test(start_paused = true)]
async fn mass_loss_one_by_one_by_status_is_held_like_one_by_absence() {
    let mut driven = Driven::guarded();
    driven.read(1..=10);
    for bad in 1..=10 {
        driven.set([all(1..=bad, Critical), all(bad + 1..=10, Passing)].concat());
        driven.pass(ms(300)).await;
    }
    assert_eq!((driven.listed().len(), driven.held().len()), (0, 10));
}

#[tokio::test(start_paused = true)]
async fn mass_loss_by_weight_is_held() {
    let mut driven = Driven::guarded();
    driven.read(1..=4);
    driven.set((1..=4).map(|port| instance(port).with_weight(0)).collect());
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed().len(), driven.held().len()), (0, 4));
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_loss_is_a_setting() {
    let mut driven = without(|guard| guard.by_status = false);
    driven.read(1..=4);
    driven.set(all(1..=4, Critical));
    assert_eq!((driven.listed().len(), driven.held().len()), (4, 0));
    assert_eq!(driven.subscription.snapshot().instances()[0].status(), Critical, "immediately");

    let mut driven = without(|guard| guard.by_weight = false);
    driven.read(1..=4);
    driven.set((1..=4).map(|port| instance(port).with_weight(0)).collect());
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed().len(), driven.held().len()), (4, 0));

    let mut driven = without(|guard| guard.by_replacement = false);
    driven.read(1..=4);
    driven.read(5..=8);
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed(), driven.held().len()), ((5..=8).collect(), 0));
}

#[tokio::test(start_paused = true)]
async fn set_replaced_as_a_whole_is_held_for_the_short_term() {
    let mut driven = Driven::guarded();
    driven.read(1..=4);
    driven.read(5..=8);
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed(), driven.held()), ((5..=8).collect(), (1..=4).collect()));
    driven.pass(s(11)).await;
    driven.confirm(5..=8);
    assert!(driven.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn set_is_replaced_when_less_than_half_of_it_stays() {
    let cases = [(4, vec![5, 6, 7, 8, 9, 10]), (5, vec![])];
    for (stays, held) in cases {
        let mut driven = Driven::guarded();
        driven.read(1..=10);
        driven.read((1..=stays).chain(11..=20 - stays));
        driven.pass(ms(60)).await;
        assert_eq!((driven.listed().len(), driven.held()), (10, held), "{stays} of ten stay");
    }
}

#[tokio::test(start_paused = true)]
async fn replacement_counts_within_one_read_alone() {
    let mut driven = Driven::guarded();
    driven.read(1..=10);
    driven.read(5..=14);
    driven.pass(ms(20)).await;
    driven.read(7..=16);
    driven.pass(ms(100)).await;
    assert_eq!((driven.listed(), driven.held()), ((7..=16).collect(), vec![]));
}

#[tokio::test(start_paused = true)]
async fn instance_renamed_at_its_address_is_no_loss() {
    let mut driven = Driven::guarded();
    driven.read([1, 2]);
    driven.set([1, 2].map(|port| instance(port).with_id(format!("new-{port}"))).to_vec());
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![1, 2], vec![]));
    driven.read([]);
    driven.pass(ms(60)).await;
    assert_eq!(driven.held(), [1, 2]);
    driven.set(vec![instance(1).with_id("newer")]);
    assert_eq!((driven.listed(), driven.held()), (vec![1], vec![2]));
}

#[tokio::test(start_paused = true)]
async fn one_that_drains_is_shown_so_and_its_departure_is_no_loss() {
    let mut driven = Driven::guarded();
    driven.read([1, 2, 3]);
    driven.set(vec![instance(1), with(2, Draining), instance(3)]);
    driven.pass(ms(60)).await;
    assert_eq!(driven.subscription.snapshot().instances()[1].status(), Draining);
    driven.read([1, 3]);
    assert_eq!(driven.listed(), [1, 3]);
    driven.read([]);
    driven.pass(ms(60)).await;
    assert_eq!(driven.held(), [1, 3], "not the one that had drained");
}

#[tokio::test(start_paused = true)]
async fn change_of_one_that_drains_is_shown_immediately_and_once() {
    let mut driven = Driven::guarded();
    let drains = |weight| vec![instance(1), with(2, Draining).with_weight(weight), instance(3)];
    driven.read([1, 2, 3]);
    driven.set(drains(1));
    driven.pass(ms(60)).await;
    assert!(driven.changed());
    driven.set(drains(1));
    driven.pass(s(1)).await;
    assert!(!driven.changed(), "nothing has changed");
    driven.set(drains(7));
    assert_eq!(driven.subscription.snapshot().instances()[1].weight(), 7);
}

#[tokio::test(start_paused = true)]
async fn hidden_instance_leaves_immediately_when_none_is_to_be_held() {
    let guard = LossGuard { hold_unhealthy: Duration::ZERO, ..LossGuard::default() };
    let config = RegistryConfig::default().loss(LossPolicy::Guard(guard));
    let publisher = Publisher::new("test", "s", config);
    let mut driven = Driven::of(publisher.wants(|instance| instance.status() == Passing));
    driven.read(1..=4);
    driven.set([vec![with(1, Critical)], all(2..=4, Passing)].concat());
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![2, 3, 4], vec![]));
    assert_eq!(driven.publisher.stats().unhealthy, 0);
}

/// A restarted agent reports its instances as critical until their first check: 6 to 8 s with an
/// interval of 10 s.
#[tokio::test(start_paused = true)]
async fn minority_that_is_critical_for_seconds_is_held_and_returns() {
    let mut driven = passing();
    driven.read(1..=4);
    driven.set([vec![with(1, Critical)], all(2..=4, Passing)].concat());
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![2, 3, 4], vec![1]));
    assert_eq!(driven.publisher.stats().unhealthy, 1);
    driven.pass(s(9)).await;
    driven.read(1..=4);
    assert_eq!((driven.listed(), driven.held()), (vec![1, 2, 3, 4], vec![]));
    assert_eq!((driven.n_confirms, driven.publisher.stats().suppressed), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn critical_instance_leaves_after_30_s_and_a_gone_one_now() {
    let mut driven = passing();
    driven.read(1..=8);
    driven.set([all(1..=2, Critical), all(3..=8, Passing)].concat());
    driven.pass(s(1)).await;
    assert_eq!(driven.held(), [1, 2]);
    driven.set([all(1..=1, Critical), all(3..=8, Passing)].concat());
    assert_eq!(driven.held(), [1], "2 is not registered any more");
    driven.pass(s(28)).await;
    assert_eq!(driven.held(), [1]);
    driven.pass(s(2)).await;
    assert!(driven.held().is_empty());
    assert_eq!((driven.n_confirms, driven.listed().len()), (0, 6));
}

#[tokio::test(start_paused = true)]
async fn hidden_instances_of_a_mass_loss_are_held_until_confirmed() {
    let mut driven = passing();
    driven.read(1..=4);
    for bad in 1..=4 {
        driven.set([all(1..=bad, Critical), all(bad + 1..=4, Passing)].concat());
        driven.pass(s(4)).await;
    }
    assert_eq!((driven.listed().len(), driven.held().len()), (0, 4));
    driven.pass(s(40)).await;
    assert_eq!(driven.held().len(), 4, "longer than a single one");
}

#[tokio::test(start_paused = true)]
async fn hidden_from_the_start_is_never_shown() {
    let mut driven = passing();
    driven.set(vec![with(1, Critical), instance(2)]);
    driven.pass(s(60)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![2], vec![]));
}

/// A lease that has not ended yet, of a process that was draining when it was killed.
#[tokio::test(start_paused = true)]
async fn remains_of_a_dead_process_hide_no_live_one_at_its_address() {
    let new = Instance::new("10.0.0.1", 80).with_id("web-2");
    for status in [Critical, Draining] {
        let old = Instance::new("10.0.0.1", 80).with_id("web-1").with_started_at_ms(9);
        for entries in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
            let mut driven = Driven::guarded();
            driven.set(
                entries
                    .map(|it| if it.id() == old.id() { it.with_status(status) } else { it })
                    .to_vec(),
            );
            assert_eq!(driven.subscription.snapshot().instances(), std::slice::from_ref(&new));
        }
    }
    let idle = new.clone().with_id("web-0").with_weight(0);
    let mut driven = Driven::guarded();
    driven.set(vec![idle, new.clone()]);
    assert_eq!(driven.subscription.snapshot().instances(), std::slice::from_ref(&new));
    let young = new.clone().with_id("web-3").with_started_at_ms(1);
    driven.set(vec![new, young.clone()]);
    driven.pass(ms(60)).await;
    assert_eq!(driven.subscription.snapshot().instances(), [young], "the youngest");
}

#[tokio::test(start_paused = true)]
async fn order_of_the_answer_decides_nothing() {
    let a = Instance::new("10.0.0.1", 80).with_metadata("version", "1");
    let (b, c) = (a.clone().with_metadata("version", "2"), a.clone().with_weight(2));
    let mut driven = Driven::guarded();
    for entries in [[&a, &b, &c], [&c, &b, &a], [&b, &c, &a]] {
        driven.set(entries.map(Clone::clone).to_vec());
        driven.set(entries.map(|it| it.clone().with_zone("z").with_id(it.id().as_str())).to_vec());
        driven.set(entries.map(Clone::clone).to_vec());
    }
    let versions: Vec<_> = driven.subscription.snapshot().instances().to_vec();
    assert_eq!((versions.len(), driven.publisher.stats().updates), (1, 7));
}

/// One of two sessions cannot be read now: its entry is as it was.
#[tokio::test(start_paused = true)]
async fn entry_that_cannot_be_read_now_keeps_its_last_value() {
    let mut driven = Driven::guarded();
    driven.read([1, 2, 3]);
    let named =
        |kind, n: u16| Error::new(kind, "test", "get").with_instance(instance(n).id().clone());
    let errors = vec![named(ErrorKind::Unavailable, 2), named(ErrorKind::Protocol, 3)];
    driven.publisher.set(Entries { errors, ..Entries::new(vec![instance(1)]) });
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed(), driven.publisher.stats().kept), (vec![1, 2], 1));
    let errors = vec![named(ErrorKind::Unavailable, 9), named(ErrorKind::Timeout, 1)];
    driven.publisher.set(Entries { errors, ..Entries::new(vec![instance(1), instance(2)]) });
    assert_eq!((driven.listed(), driven.publisher.stats().kept), (vec![1, 2], 1));
}

#[tokio::test(start_paused = true)]
async fn proof_of_life_is_fresh_confirms_and_restores() {
    let config = RegistryConfig::default().invalidate_after(s(10));
    let mut driven = Driven::new(config);
    assert_eq!(driven.subscription.snapshot().as_of(), None);
    driven.read(1..=4);
    driven.changed();
    driven.pass(s(5)).await;
    driven.publisher.unchanged(ReadMode::Changed);
    assert!(!driven.changed(), "no subscriber is woken");
    assert_eq!(driven.subscription.snapshot().as_of(), Some(Instant::now()));
    driven.publisher.failed(unavailable("gone"));
    driven.pass(s(11)).await;
    assert!(driven.listed().is_empty(), "invalidated");
    driven.publisher.unchanged(ReadMode::Changed);
    assert_eq!(driven.listed(), [1, 2, 3, 4]);
    assert!(driven.subscription.snapshot().freshness().is_fresh());
    driven.read([1]);
    driven.pass(s(11)).await;
    driven.publisher.unchanged(ReadMode::Changed);
    assert_eq!(driven.held(), [2, 3, 4]);
    driven.publisher.unchanged(ReadMode::Confirm);
    assert!(driven.held().is_empty());
    driven.set(vec![Instance::new("0.0.0.0", 80)]);
    driven.publisher.unchanged(ReadMode::Changed);
    assert!(!driven.subscription.snapshot().freshness().is_fresh(), "nothing proves a refused set");
}
