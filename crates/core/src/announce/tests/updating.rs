//! Updates: accepted, refused, failing, and their independence of renewals.

use super::*;
use crate::LeaseTtl;

#[tokio::test(start_paused = true)]
async fn update_overwrites_and_survives_a_new_announcement() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    handle.update(|instance| instance.with_weight(7)).await.expect("accepted");
    assert_eq!(fake.0.weight.swap(0, SeqCst), 7);
    fake.set(|s| &s.forgotten, true);
    until("announced again", || fake.weight() == 7).await;
    assert_eq!(fake.counts().2, 0, "never withdrawn");
    for other in [
        Instance::new("127.0.0.1", 81).with_id("127.0.0.1:80"),
        Instance::new("127.0.0.2", 80).with_id("127.0.0.1:80"),
        Instance::new("127.0.0.1", 80).with_id("another"),
    ] {
        let error = handle.update(|_| other).await.expect_err("another instance");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_update_keeps_the_registration() {
    let fake = Fake::default();
    let handle = fake.register(registration().retry_in_background()).await.expect("accepted");
    until("registered", || fake.there()).await;
    handle.update(|instance| instance.with_weight(7)).await.expect("accepted");
    fake.0.refused.store(13, SeqCst);
    let error = handle.update(|instance| instance.with_weight(13)).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    let before = fake.counts();
    sleep(TTL * 10).await;
    let (announced, renewed, _) = fake.counts();
    assert_eq!(announced, 3, "the registry has what it accepted: nothing is announced again");
    assert!((29..=34).contains(&(renewed - before.1)), "{renewed} renewals in ten TTLs");
    assert!(matches!(handle.state(), RegistrationState::Registered), "{handle:?}");
    fake.set(|s| &s.forgotten, true);
    until("announced again", || fake.counts().0 > announced).await;
    sleep(TTL).await;
    assert_eq!((fake.weight(), fake.there()), (7, true), "as accepted last");
    let heavier = |instance: Instance| {
        let weight = instance.weight() + 1;
        instance.with_weight(weight)
    };
    handle.update(heavier).await.expect("accepted");
    assert_eq!(fake.weight(), 8, "based on what was accepted");
}

#[tokio::test(start_paused = true)]
async fn update_refused_after_a_loss_is_discarded() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    fake.0.refused.store(13, SeqCst);
    fake.set(|s| &s.down, true);
    sleep(TTL * 2).await;
    let update = handle.update(|instance| instance.with_weight(13));
    update.await.expect_err("not while it is down");
    fake.set(|s| &s.there, false);
    fake.set(|s| &s.down, false);
    let took = until("back", || fake.there()).await;
    assert!(took <= TTL / 3 + Duration::from_millis(100), "{took:?}");
    assert_eq!(fake.weight(), Instance::new("127.0.0.1", 80).weight());
}

/// The registry may have taken the update whose answer was lost.
#[tokio::test(start_paused = true)]
async fn refusal_after_an_unknown_outcome_announces_what_was_accepted() {
    let fake = Fake::default();
    let handle = fake.register(registration().retry_in_background()).await.expect("accepted");
    until("registered", || fake.there()).await;
    fake.add(|s| &s.failing, "announce");
    handle.update(|instance| instance.with_weight(5)).await.expect_err("failing");
    fake.0.weight.store(5, SeqCst); // which took effect all the same
    fake.0.refused.store(13, SeqCst);
    let update = handle.update(|instance| instance.with_weight(13));
    fake.clear(|s| &s.failing);
    update.await.expect_err("refused");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fake.weight(), Instance::new("127.0.0.1", 80).weight());
}

#[tokio::test(start_paused = true)]
async fn updates_postpone_no_renewal() {
    for every in [Duration::from_millis(20), Duration::from_millis(1500)] {
        let fake = Fake::default();
        let handle = fake.register(registration()).await.expect("registered");
        let start = Instant::now();
        for n in 1.. {
            if start.elapsed() >= TTL * 8 {
                break;
            }
            sleep(every).await;
            handle.update(move |instance| instance.with_weight(n)).await.expect("accepted");
        }
        let (_, renewed, _) = fake.counts();
        assert!((23..=27).contains(&renewed), "{renewed} renewals in eight TTLs, every {every:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn update_that_fails_or_hangs_costs_no_renewal() {
    for fault in [
        (|s: &fake::Shared| &s.failing) as fn(&fake::Shared) -> &_,
        (|s: &fake::Shared| &s.hanging) as fn(&fake::Shared) -> &_,
    ] {
        let fake = Fake::default();
        // Not much longer than the longest call.
        fake.grants(LeaseTtl::new(Duration::from_secs(6)));
        let handle = fake.register(registration()).await.expect("registered");
        fake.add(fault, "announce");
        let error = handle.update(|it| it.with_weight(9)).await.expect_err("no answer");
        assert!(error.is_transient(), "{error:?}");
        let mut watch = handle.watch();
        let before = fake.counts();
        let lost = timeout(TTL * 10, watch.changed());
        lost.await.expect_err("never lost");
        let renewed = fake.counts().1 - before.1;
        assert!(renewed >= 14, "{renewed} renewals in ten TTLs");
        fake.clear(fault);
        until("announced", || fake.weight() == 9).await;
    }
}

#[tokio::test(start_paused = true)]
async fn updates_during_an_outage_cost_no_further_attempts() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.down, true);
    sleep(TTL * 2).await;
    let before = fake.counts().0;
    let updates = (0..500).map(|n| {
        let watch = handle.watch();
        async move {
            sleep(Duration::from_millis(120) * n).await;
            watch.update(move |instance| instance.with_weight(n + 1)).await.expect_err("down");
        }
    });
    futures_util::future::join_all(updates).await;
    let attempts = fake.counts().0 - before;
    assert!(attempts < 60, "{attempts} attempts in a minute");
    fake.set(|s| &s.down, false);
    until("announced", || fake.weight() == 500).await;
}

#[tokio::test(start_paused = true)]
async fn update_while_withheld_is_announced_with_the_recovery() {
    let (fake, healthy) = (Fake::default(), Arc::new(AtomicBool::new(false)));
    let registration = registration().health(check(&healthy));
    let handle = fake.register(registration).await.expect("withheld");
    handle.update(|instance| instance.with_weight(3)).await.expect("taken");
    sleep(TTL).await;
    assert_eq!(fake.counts().0, 0, "not announced while critical");
    healthy.store(true, SeqCst);
    until("announced", || fake.weight() == 3).await;
}

/// A lease that became shorter is renewed by its own interval.
#[tokio::test(start_paused = true)]
async fn update_that_shortens_the_ttl_advances_the_renewal() {
    let fake = Fake::default();
    fake.grants(LeaseTtl::new(Duration::from_secs(3600)));
    let handle = fake.register(registration()).await.expect("registered");
    fake.grants(LeaseTtl::new(TTL));
    handle.update(|instance| instance.with_weight(3)).await.expect("accepted");
    sleep(TTL).await;
    assert!(fake.counts().1 >= 2, "{:?}", fake.counts());
}

#[tokio::test(start_paused = true)]
async fn update_that_hangs_has_the_time_of_any_call() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    fake.add(|s| &s.hanging, "announce");
    let start = Instant::now();
    let error = handle.update(|instance| instance.with_weight(3)).await.expect_err("hangs");
    assert_eq!((error.kind(), start.elapsed()), (ErrorKind::Timeout, Duration::from_secs(5)));
}

/// The token has lost its rights: there is nothing else to announce.
#[tokio::test(start_paused = true)]
async fn refused_announcements_after_a_loss_are_rare() {
    let fake = Fake::default();
    let mut handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.denied, true);
    let state = timeout(TTL * 2, handle.changed()).await.expect("its TTL is over");
    assert!(matches!(state, RegistrationState::Lost { .. }), "{state:?}");
    let before = fake.counts().0;
    sleep(Duration::from_secs(60)).await;
    let attempts = fake.counts().0 - before;
    assert!((3..=7).contains(&attempts), "{attempts} attempts in a minute");
    fake.set(|s| &s.denied, false);
    handle.registered(Duration::from_secs(20)).await.expect("registered again");
}
