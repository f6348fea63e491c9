//! For how long a loss is held, and which reads confirm it.

use super::*;

#[tokio::test(start_paused = true)]
async fn emptied_set_is_held_until_confirmation_and_hold_down() {
    let mut driven = Driven::guarded();
    driven.read(1..=5);
    driven.read([]);
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![], vec![1, 2, 3, 4, 5]));
    driven.pass(s(59)).await;
    assert_eq!(driven.n_confirms, 0, "not before half of the term");
    driven.pass(s(2)).await;
    assert_eq!(driven.n_confirms, 1, "half-way");
    driven.read([]);
    driven.pass(s(58)).await;
    assert_eq!(driven.held().len(), 5, "not before the end of the term");
    driven.pass(s(3)).await;
    assert_eq!(driven.n_confirms, 2, "at the end");
    driven.read([]);
    assert_eq!(driven.held().len(), 5, "not before the confirming read");
    driven.confirm([]);
    assert!(driven.held().is_empty());
    assert_eq!(driven.publisher.stats().suppressed, 1);
}

#[tokio::test(start_paused = true)]
async fn replaced_singleton_is_not_held_for_long() {
    let mut driven = Driven::guarded();
    driven.read([1]);
    driven.read([]);
    driven.pass(s(3)).await;
    assert_eq!(driven.held(), [1]);
    driven.read([2]);
    assert_eq!((driven.listed(), driven.held()), (vec![2], vec![1]));
    driven.pass(s(8)).await;
    assert!(driven.n_confirms >= 1);
    driven.confirm([2]);
    assert!(driven.held().is_empty(), "the loss is replaced: 10 s, not 2 min");
}

#[tokio::test(start_paused = true)]
async fn held_instances_outlast_an_outage() {
    let mut driven = Driven::guarded();
    driven.read(1..=4);
    driven.read([1]);
    driven.pass(s(1)).await;
    driven.publisher.failed(unavailable("gone"));
    driven.pass(s(600)).await;
    driven.read([1]);
    assert_eq!(driven.held().len(), 3, "no read has confirmed the loss");
    driven.confirm([1]);
    assert!(driven.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn instances_whose_term_was_lengthened_are_confirmed_again() {
    let mut driven = Driven::guarded();
    driven.read(1..=5);
    driven.read([4, 5]);
    driven.pass(ms(5_060)).await;
    driven.confirm([4, 5]);
    driven.pass(ms(4_960)).await;
    driven.read([]);
    driven.pass(ms(100)).await;
    assert_eq!((driven.held(), driven.n_confirms), (vec![1, 2, 3, 4, 5], 2));
    driven.confirm([]);
    driven.pass(s(30)).await;
    driven.read([4, 5]);
    driven.pass(s(1)).await;
    assert_eq!((driven.held(), driven.n_confirms), (vec![1, 2, 3], 3));
    driven.confirm([4, 5]);
    assert!(driven.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn confirmation_that_was_refused_is_requested_again() {
    let mut driven = Driven::new(RegistryConfig::default().max_instances(5));
    driven.read(1..=4);
    driven.read([1]);
    driven.pass(s(11)).await;
    driven.confirm(10..=20);
    driven.pass(s(60)).await;
    assert_eq!((driven.held(), driven.n_confirms), (vec![2, 3, 4], 2), "too many to be accepted");
    driven.read([1]);
    driven.pass(s(1)).await;
    assert_eq!((driven.held(), driven.n_confirms), (vec![2, 3, 4], 3));
    driven.confirm([1]);
    assert!(driven.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn loss_that_goes_on_wakes_no_subscriber() {
    let mut driven = Driven::guarded();
    driven.read(1..=4);
    driven.read([1]);
    driven.pass(s(1)).await;
    assert_eq!((driven.held(), driven.changed()), (vec![2, 3, 4], true));
    driven.read([1]);
    driven.pass(s(5)).await;
    driven.read([1]);
    assert_eq!((driven.n_confirms, driven.changed()), (1, false));
}

/// The term begins when the instances become held, however long their removal has waited.
#[tokio::test(start_paused = true)]
async fn wait_of_a_removal_is_no_part_of_the_term() {
    let mut driven = Driven::new(RegistryConfig::default().removal_wait(s(30)));
    driven.read(1..=5);
    driven.read([]);
    driven.pass(s(31)).await;
    assert_eq!(driven.held().len(), 5);
    driven.pass(s(118)).await;
    driven.confirm([]);
    assert_eq!(driven.held().len(), 5, "for two minutes");
    driven.pass(s(2)).await;
    driven.confirm([]);
    assert!(driven.held().is_empty());
}

/// No set has confirmed the first loss, and its term is not begun again by the second one.
#[tokio::test(start_paused = true)]
async fn further_loss_requests_no_confirmation_that_is_due_already() {
    let mut driven = Driven::guarded();
    driven.read(1..=9);
    driven.read([1, 2, 3]);
    driven.pass(s(20)).await;
    assert_eq!((driven.held(), driven.n_confirms), ((4..=9).collect(), 2));
    driven.read([1]);
    driven.pass(s(1)).await;
    assert_eq!((driven.held(), driven.n_confirms), ((2..=9).collect(), 2));
}
