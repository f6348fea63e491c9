use std::{thread, time::Duration};

use super::*;

fn at(budget: &RetryBudget, seconds: u64) -> Instant {
    budget.0.epoch + Duration::from_secs(seconds)
}

fn spend(budget: &RetryBudget, now: Instant) -> bool {
    budget.withdraw(now).map(Withdrawal::spend).is_some()
}

#[test]
fn every_share_is_paid_exactly() {
    for percent in 1..=100 {
        let budget = RetryBudget::with(percent, 0).expect("a share");
        let now = at(&budget, 3);
        (0..1_000).for_each(|_| budget.deposit(now));
        let spent = (0..2_000).filter(|_| spend(&budget, now)).count();
        assert_eq!(spent, usize::from(percent) * 10, "{percent} %");
    }
}

#[test]
fn success_pays_for_ten_seconds_and_no_longer() {
    let budget = RetryBudget::with(100, 0).expect("a share");
    budget.deposit(at(&budget, 0));
    assert!(budget.withdraw(at(&budget, 9)).is_some());
    assert!(budget.withdraw(at(&budget, 10)).is_none());
    // An hour later its slot is another second's.
    budget.deposit(at(&budget, 3_600));
    assert_eq!(budget.report(at(&budget, 3_600)).successes, 1);
}

#[test]
fn success_of_long_ago_counts_in_the_second_of_its_slot() {
    let budget = RetryBudget::with(100, 0).expect("a share");
    budget.deposit(at(&budget, 16));
    budget.deposit(at(&budget, 0));
    assert_eq!(budget.report(at(&budget, 16)).successes, 2);
}

#[test]
fn success_counts_in_its_own_second_after_a_later_one() {
    let budget = RetryBudget::with(100, 0).expect("a share");
    budget.deposit(at(&budget, 20));
    budget.deposit(at(&budget, 12));
    assert_eq!(budget.report(at(&budget, 21)).successes, 2);
    assert_eq!(budget.report(at(&budget, 25)).successes, 1);
}

/// The thread keeps the second of the one alone that it was in last.
#[tokio::test(start_paused = true)]
async fn budgets_of_different_age_count_seconds_of_their_own() {
    let older = RetryBudget::with(100, 0).expect("a share");
    tokio::time::advance(Duration::from_secs(25)).await;
    let (younger, now) = (RetryBudget::with(100, 0).expect("a share"), Instant::now());
    younger.deposit(now);
    older.deposit(now);
    let later = now + Duration::from_secs(5);
    assert_eq!([&older, &younger].map(|budget| budget.report(later).successes), [1, 1]);
}

#[test]
fn debug_shows_the_settings_and_the_refusals() {
    let budget = RetryBudget::with(25, 0).expect("a share");
    assert!(!spend(&budget, at(&budget, 0)));
    assert_eq!(format!("{budget:?}"), "RetryBudget { percent: 25, floor: 0, refused: 1, .. }");
}

#[test]
fn floor_holds_in_each_window_without_successes() {
    let budget = RetryBudget::new();
    for second in 0..30 {
        let spent = (0..200).filter(|_| spend(&budget, at(&budget, second))).count();
        assert_eq!(spent, if second % 10 == 0 { 100 } else { 0 }, "second {second}");
    }
    assert_eq!(budget.report(at(&budget, 29)).refused, 30 * 200 - 300);
}

#[test]
fn withdrawal_that_is_dropped_returns() {
    let budget = RetryBudget::with(100, 0).expect("a share");
    let now = at(&budget, 1);
    budget.deposit(now);
    for _ in 0..5 {
        let held = budget.withdraw(now).expect("paid");
        assert!(budget.withdraw(now).is_none());
        drop(held);
    }
    // One of a second that has left the window changes nothing.
    let held = budget.withdraw(now).expect("paid");
    budget.deposit(at(&budget, 17));
    assert!(spend(&budget, at(&budget, 17)) && !spend(&budget, at(&budget, 17)));
    drop(held);
    assert_eq!(budget.report(at(&budget, 17)).retries, 1);
}

#[test]
fn share_outside_of_one_to_a_hundred_is_refused_with_its_value() {
    for percent in [0, 101, 255] {
        let error = RetryBudget::with(percent, 10).expect_err("refused").to_string();
        assert!(error.contains(&format!("budget of {percent} % is not in 1 to 100 %")), "{error}");
    }
}

#[test]
fn threads_spend_no_more_than_there_is() {
    let budget = RetryBudget::with(50, 0).expect("a share");
    let now = at(&budget, 0);
    let spent: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..10_000)
                        .filter(|_| {
                            budget.deposit(now);
                            spend(&budget, now)
                        })
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    let report = budget.report(now);
    assert_eq!((report.successes, report.retries), (40_000, u64::try_from(spent).expect("few")));
    assert!(spent <= 20_000, "{spent}");
    // What was refused in a race is there still.
    assert_eq!(spent + (0..40_000).filter(|_| spend(&budget, now)).count(), 20_000);
}
