//! Ends: bounded, in order, and with nothing left behind.

use super::*;

#[tokio::test(start_paused = true)]
async fn hanging_deregistration_is_bounded_and_nothing_follows_it() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    sleep(Duration::from_secs(1)).await;
    fake.set(|s| &s.hangs, true);
    let start = Instant::now();
    let error = handle.deregister().await.expect_err("hangs");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    fake.set(|s| &s.hangs, false);
    let counts = fake.counts();
    sleep(TTL * 3).await;
    assert_eq!(fake.counts(), counts);
}

/// It reaches no registry.
#[tokio::test(start_paused = true)]
async fn hanging_health_check_delays_no_withdrawal() {
    let (fake, hangs) = (Fake::default(), Arc::new(AtomicBool::new(false)));
    let check = Arc::clone(&hangs);
    let check = move || {
        let hangs = check.load(SeqCst);
        async move { if hangs { std::future::pending().await } else { CheckResult::Passing } }
    };
    let registration = registration().health(check).health_interval(Duration::from_secs(1));
    let handle = fake.register(registration).await.expect("registered");
    hangs.store(true, SeqCst);
    sleep(Duration::from_millis(1500)).await;
    let start = Instant::now();
    handle.deregister().await.expect("withdrawn");
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    assert!(!fake.there());
}

#[tokio::test(start_paused = true)]
async fn renewal_in_flight_ends_before_the_withdrawal() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    until("a renewal in flight", || fake.0.n_running.load(SeqCst) == 1).await;
    handle.deregister().await.expect("withdrawn");
    assert!(!fake.there());
    let (_, renewed, withdrawn) = fake.counts();
    assert_eq!((renewed, withdrawn), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn deregistration_during_an_outage_leaves_nothing_behind() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.down, true);
    sleep(TTL * 2).await;
    let back = async {
        sleep(Duration::from_secs(1)).await;
        fake.set(|s| &s.down, false);
    };
    let (withdrawn, ()) = tokio::join!(handle.deregister(), back);
    withdrawn.expect("withdrawn");
    sleep(TTL * 3).await;
    assert!(!fake.there());
}

#[tokio::test(start_paused = true)]
async fn dropped_handle_withdraws_in_the_background() {
    let fake = Fake::default();
    drop(fake.register(registration()).await.expect("registered"));
    until("gone", || !fake.there()).await;
}

#[tokio::test(start_paused = true)]
async fn closing_the_registrar_waits_for_the_withdrawals() {
    let (fake, tasks) = (Fake::default(), TaskGroup::new());
    let config = AnnounceConfig::default();
    let handle = announce("fake", Box::new(fake.clone()), registration(), config, &tasks).await;
    let handle = handle.expect("registered");
    tasks.close().await;
    assert!(!fake.there());
    assert!(matches!(handle.state(), RegistrationState::Deregistered));
    handle.deregister().await.expect("done already");
}

/// A connection that is stuck leaves time for an attempt on another one.
#[tokio::test(start_paused = true)]
async fn withdrawal_that_hangs_is_repeated_within_its_time() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    fake.add(|s| &s.hanging, "withdraw");
    let unstuck = async {
        sleep(Duration::from_secs(1)).await;
        fake.clear(|s| &s.hanging);
    };
    let start = Instant::now();
    let (withdrawn, ()) = tokio::join!(handle.deregister(), unstuck);
    withdrawn.expect("by the second attempt");
    assert!(!fake.there());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// The pauses of an outage before are not those of the withdrawal.
#[tokio::test(start_paused = true)]
async fn withdrawal_after_a_long_outage_is_repeated_soon() {
    let fake = Fake::default();
    fake.grants(crate::LeaseTtl::new(Duration::from_secs(600)));
    let handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.down, true);
    sleep(Duration::from_secs(6000)).await;
    let before = fake.counts().2;
    handle.deregister().await.expect_err("down");
    let attempts = fake.counts().2 - before;
    assert!((4..40).contains(&attempts), "{attempts} attempts in 5 s");
}

#[tokio::test(start_paused = true)]
async fn refused_withdrawal_is_not_repeated() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.denied, true);
    let start = Instant::now();
    let error = handle.deregister().await.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
}
