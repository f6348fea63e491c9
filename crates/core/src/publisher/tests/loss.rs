//! What the loss guard holds, and what it lets go.

use super::*;
use crate::InstanceStatus::Critical;

#[tokio::test(start_paused = true)]
async fn filter_that_panics_drops_no_member() {
    let publisher = Publisher::new("test", "s", RegistryConfig::default());
    let mut driven = Driven::of(publisher.wants(|it| {
        assert!(it.port() != 99, "a bug of the user's filter");
        true
    }));
    driven.read(1..=10);
    let read = std::panic::AssertUnwindSafe(|| driven.read((1..=10).chain([99])));
    std::panic::catch_unwind(read).expect_err("the loop contains it");
    driven.read([1]);
    driven.pass(s(1)).await;
    assert_eq!((driven.listed(), driven.held().len()), (vec![1], 9));
}

#[tokio::test(start_paused = true)]
async fn loss_that_the_next_read_takes_back_removes_no_instance() {
    let mut driven = Driven::guarded();
    driven.read(1..=5);
    driven.read([1, 2]);
    driven.pass(ms(200)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![1, 2], vec![3, 4, 5]));
    driven.read(1..=5);
    assert_eq!((driven.listed(), driven.held()), (vec![1, 2, 3, 4, 5], vec![]));
    driven.pass(s(300)).await;
    assert_eq!(driven.listed().len(), 5);
    assert_eq!(driven.publisher.stats().suppressed, 1);
}

#[tokio::test(start_paused = true)]
async fn additions_are_published_while_removals_are_held() {
    let mut driven = Driven::guarded();
    driven.read(1..=5);
    driven.read([]);
    driven.pass(s(1)).await;
    driven.read([9]);
    assert_eq!((driven.listed(), driven.held()), (vec![9], vec![1, 2, 3, 4, 5]));
    driven.read([9, 10]);
    assert_eq!(driven.listed(), [9, 10]);
}

#[tokio::test(start_paused = true)]
async fn single_removal_is_published_within_100_ms_with_a_pause() {
    let mut driven = Driven::guarded();
    driven.read([1, 2, 3]);
    driven.read([1, 2]);
    assert_eq!(driven.listed(), [1, 2, 3], "waits for what follows");
    driven.pass(ms(100)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![1, 2], vec![]));
}

#[tokio::test(start_paused = true)]
async fn mass_loss_one_by_one_is_held_like_one_in_a_single_read() {
    let at_once = [0];
    let one_by_one: Vec<u16> = (0..100).rev().collect();
    for losses in [&at_once[..], &one_by_one[..]] {
        let mut driven = Driven::guarded();
        driven.read(1..=100);
        for left in losses {
            driven.read(1..=*left);
            driven.pass(ms(10)).await;
        }
        driven.pass(ms(100)).await;
        assert_eq!(driven.held().len(), 100);
        driven.pass(s(100)).await;
        driven.read([]);
        assert_eq!(driven.held().len(), 100, "all of them for the long term");
        driven.pass(s(25)).await;
        driven.confirm([]);
        assert_eq!(driven.held().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn rolling_replacement_loses_none_and_holds_none() {
    let mut driven = Driven::guarded();
    driven.read(0..10);
    for step in 1..=10 {
        driven.read(step..10 + step - 1);
        driven.pass(ms(500)).await;
        assert!(driven.listed().len() >= 9);
        driven.read(step..10 + step);
        driven.pass(ms(500)).await;
        assert_eq!(driven.listed().len(), 10);
    }
    assert!(driven.held().is_empty());
    assert_eq!(driven.publisher.stats().suppressed, 0);
}

#[tokio::test(start_paused = true)]
async fn wiped_registry_that_fills_slowly_keeps_all_instances() {
    let mut driven = Driven::guarded();
    driven.read(1..=10);
    driven.read([]);
    driven.pass(s(61)).await;
    for n in 1..=10 {
        driven.read(1..=n);
        driven.pass(s(5)).await;
        assert_eq!(driven.listed().len() + driven.held().len(), 10);
    }
    assert_eq!(driven.listed().len(), 10);
}

/// A registry that was wiped, and fills within milliseconds.
#[tokio::test(start_paused = true)]
async fn rest_of_a_large_loss_is_held_when_most_of_it_has_come_back() {
    let mut driven = Driven::guarded();
    driven.read([1, 2, 3]);
    driven.read([]);
    driven.pass(ms(20)).await;
    driven.read([1, 2]);
    driven.pass(ms(100)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![1, 2], vec![3]));
    driven.pass(s(11)).await;
    driven.confirm([1, 2]);
    assert!(driven.held().is_empty());
}

/// A registry that was restarted, and read before the last one is back.
#[tokio::test(start_paused = true)]
async fn removal_first_read_after_trouble_is_held_until_confirmed() {
    let troubles: [fn(&mut Publisher); 2] =
        [|publisher| publisher.failed(unavailable("gone")), |publisher| publisher.resync("reset")];
    for trouble in troubles {
        let mut driven = Driven::guarded();
        driven.read([1, 2, 3]);
        trouble(&mut driven.publisher);
        driven.read([1, 2]);
        driven.pass(ms(100)).await;
        assert_eq!((driven.listed(), driven.held()), (vec![1, 2], vec![3]));
        assert_eq!(driven.publisher.stats().suppressed, 1);
        driven.read([1, 2]);
        driven.pass(s(11)).await;
        assert_eq!((driven.held(), driven.n_confirms), (vec![3], 2), "not before it is confirmed");
        driven.confirm([1, 2]);
        assert!(driven.held().is_empty());
        driven.read([1]);
        driven.pass(ms(100)).await;
        assert_eq!((driven.listed(), driven.held()), (vec![1], vec![]), "a departure as any other");
    }
}

#[tokio::test(start_paused = true)]
async fn removal_later_after_trouble_is_published_as_any_other() {
    let mut driven = Driven::guarded();
    driven.read([1, 2, 3]);
    driven.publisher.failed(unavailable("gone"));
    driven.read([1, 2, 3]);
    driven.read([1, 2]);
    driven.pass(ms(100)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![1, 2], vec![]));
}

#[tokio::test(start_paused = true)]
async fn instance_missing_after_trouble_is_offered_when_it_is_back() {
    let mut driven = Driven::guarded();
    driven.read([1, 2, 3]);
    driven.publisher.failed(unavailable("gone"));
    driven.read([1, 2]);
    driven.pass(s(1)).await;
    driven.read([1, 2, 3]);
    assert_eq!((driven.listed(), driven.held()), (vec![1, 2, 3], vec![]));
    let mut driven = Driven::new(RegistryConfig::default().loss(LossPolicy::Accept));
    driven.read([1, 2, 3]);
    driven.publisher.failed(unavailable("gone"));
    driven.read([1, 2]);
    driven.pass(s(1)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![1, 2], vec![]), "without the guard");
}

#[tokio::test(start_paused = true)]
async fn every_loss_is_accepted_without_the_guard() {
    let mut driven = Driven::new(RegistryConfig::default().loss(LossPolicy::Accept));
    driven.read(1..=5);
    driven.read([]);
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn changed_payload_is_published_immediately() {
    let mut driven = Driven::guarded();
    driven.read([1, 2]);
    driven.set(vec![instance(1), instance(2).with_weight(7)]);
    assert_eq!(driven.subscription.snapshot().instances()[1].weight(), 7);
}

#[tokio::test(start_paused = true)]
async fn removal_waits_for_50_ms() {
    let mut driven = Driven::guarded();
    driven.read([1, 2, 3]);
    driven.read([1, 2]);
    driven.pass(ms(45)).await;
    assert_eq!(driven.listed(), [1, 2, 3]);
    driven.pass(ms(10)).await;
    assert_eq!(driven.listed(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn leaver_waits_although_a_newcomer_sorts_before_it() {
    let mut driven = Driven::guarded();
    driven.read([5, 6]);
    driven.read([1]);
    assert_eq!(driven.listed(), [1, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn losses_before_the_window_do_not_count() {
    let mut driven = Driven::guarded();
    driven.read(1..=10);
    driven.pass(s(1)).await;
    driven.read(1..=6);
    driven.pass(s(11)).await;
    driven.read(1..=4);
    driven.pass(s(1)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![1, 2, 3, 4], vec![]));
}

#[tokio::test(start_paused = true)]
async fn exactly_half_is_no_mass_loss() {
    let mut driven = Driven::guarded();
    driven.read(1..=10);
    driven.read(1..=5);
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed().len(), driven.held().len()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn one_by_one_to_a_third_is_held_like_a_single_read() {
    let mut driven = Driven::guarded();
    driven.read(1..=100);
    for left in (30..100).rev() {
        driven.read(1..=left);
        driven.pass(ms(60)).await;
    }
    assert_eq!((driven.listed().len(), driven.held().len()), (30, 70));
}

#[tokio::test(start_paused = true)]
async fn instance_that_left_alone_returns_only_to_an_empty_set() {
    let mut driven = Driven::guarded();
    driven.read([1, 2, 3]);
    driven.read([1, 2]);
    driven.pass(s(5)).await;
    driven.read([1]);
    driven.pass(s(1)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![1], vec![2]));
    driven.read([]);
    driven.pass(s(1)).await;
    assert_eq!(driven.held(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn instance_back_under_another_id_is_not_held_under_the_old_one() {
    let mut driven = Driven::guarded();
    let old = |n: u16| Instance::new("10.0.0.1", n).with_id(format!("old{n}"));
    let new = |n: u16| Instance::new("10.0.0.1", n).with_id(format!("new{n}"));
    driven.set((1..=10).map(old).collect());
    driven.set((2..=10).map(old).collect());
    driven.pass(ms(100)).await;
    driven.set((2..=10).map(old).chain([new(1)]).collect());
    driven.pass(ms(100)).await;
    driven.set(vec![new(1)]);
    driven.pass(ms(100)).await;
    let mut held = driven.held();
    held.sort_unstable();
    assert_eq!((driven.listed(), held), (vec![1], (2..=10).collect()));
}

/// Each of many settings of a time may be as long as a duration can be.
#[tokio::test(start_paused = true)]
async fn no_setting_of_a_duration_panics() {
    let most = Duration::MAX;
    let mut guard = LossGuard::default();
    (guard.window, guard.hold, guard.hold_empty, guard.hold_unhealthy) = (most, most, most, most);
    let config = RegistryConfig::default().loss(LossPolicy::Guard(guard));
    let mut driven = Driven::new(config.invalidate_after(most));
    driven.read(1..=4);
    driven.read([]);
    driven.pass(ms(60)).await;
    driven.publisher.failed(unavailable("gone"));
    driven.pass(s(3600)).await;
    assert_eq!(driven.held().len(), 4);
    let mut driven = Driven::new(RegistryConfig::default().removal_wait(most));
    driven.read([1]);
    driven.read([]);
    driven.pass(s(3600)).await;
    assert_eq!(driven.listed(), [1]);
}

#[tokio::test(start_paused = true)]
async fn each_removal_waits_for_its_own_reads() {
    let mut driven = Driven::guarded();
    driven.read(1..=10);
    driven.read(1..=4);
    driven.pass(ms(20)).await;
    driven.read(1..=3);
    driven.pass(ms(35)).await;
    assert_eq!((driven.listed(), driven.held()), ((1..=4).collect(), (5..=10).collect()));
    driven.pass(ms(20)).await;
    assert_eq!((driven.listed(), driven.held()), ((1..=3).collect(), (4..=10).collect()));
}

#[tokio::test(start_paused = true)]
async fn instance_that_came_back_stays_listed_when_others_are_lost() {
    let mut driven = Driven::guarded();
    driven.read(1..=4);
    driven.read([1, 2, 4]);
    driven.pass(s(1)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![1, 2, 4], vec![]));
    driven.read(1..=4);
    driven.read([3]);
    driven.pass(s(1)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![3], vec![1, 2, 4]));
}

#[tokio::test(start_paused = true)]
async fn instance_belongs_to_a_loss_a_quarter_of_the_window_later() {
    for (gap, held) in [(ms(2_500), vec![2, 3]), (ms(2_501), vec![2])] {
        let mut driven = Driven::guarded();
        driven.read([1, 2, 3]);
        driven.read([1, 2]);
        driven.pass(gap).await;
        driven.read([1]);
        driven.pass(s(1)).await;
        assert_eq!((driven.listed(), driven.held()), (vec![1], held), "{gap:?}");
    }
}

/// For the log: how many are held, how many are left, and why.
#[tokio::test(start_paused = true)]
async fn held_loss_is_reported_with_its_cause() {
    let idle = || (1..=10).map(|port| instance(port).with_weight(0)).collect::<Vec<_>>();
    let sick = || idle().into_iter().map(|it| it.with_weight(1).with_status(Critical)).collect();
    let cases: [(&str, Vec<Instance>, usize); 4] = [
        ("absent", vec![], 0),
        ("weight", idle(), 0),
        ("status", sick(), 0),
        ("replacement", (11..=20).map(instance).collect(), 10),
    ];
    for (cause, entries, left) in cases {
        let mut driven = Driven::guarded();
        driven.read(1..=10);
        driven.set(entries);
        let tripped = driven.publisher.guard.tick(Instant::now() + ms(50)).tripped;
        assert_eq!(tripped, Some(Tripped { n_held: 10, left, cause }));
    }
    let mut driven = Driven::guarded();
    driven.read(1..=10);
    driven.publisher.failed(unavailable("gone"));
    driven.read(1..=8);
    let tripped = driven.publisher.guard.tick(Instant::now() + ms(50)).tripped;
    assert_eq!(tripped, Some(Tripped { n_held: 2, left: 8, cause: "recovery" }));
    driven.read(1..=3);
    let tripped = driven.publisher.guard.tick(Instant::now() + ms(50)).tripped;
    assert_eq!(tripped, Some(Tripped { n_held: 5, left: 3, cause: "absent" }));
}
