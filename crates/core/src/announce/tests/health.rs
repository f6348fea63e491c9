//! The server's own check, and registries with and without a state for its result.

use super::*;

#[tokio::test(start_paused = true)]
async fn check_that_panics_is_critical_and_repeated() {
    let (fake, panics) = (Fake::default(), Arc::new(AtomicBool::new(false)));
    let check = Arc::clone(&panics);
    let check = move || {
        let panics = check.load(SeqCst);
        async move { if panics { panic!("in a check") } else { CheckResult::Passing } }
    };
    let registration = registration().health(check).health_interval(Duration::from_secs(1));
    let _handle = fake.register(registration).await.expect("registered");
    panics.store(true, SeqCst);
    until("withheld", || !fake.there()).await;
    panics.store(false, SeqCst);
    until("back", || fake.there()).await;
}

#[tokio::test(start_paused = true)]
async fn critical_instance_is_withdrawn_until_it_passes() {
    let (fake, healthy) = (Fake::default(), Arc::new(AtomicBool::new(true)));
    let registration =
        registration().health(check(&healthy)).health_interval(Duration::from_secs(1));
    let mut handle = fake.register(registration).await.expect("registered");
    healthy.store(false, SeqCst);
    let took = until("withheld", || !fake.there()).await;
    assert!(took <= Duration::from_millis(1100), "{took:?}");
    sleep(TTL * 2).await;
    let RegistrationState::Critical { reason } = handle.state() else { panic!("{handle:?}") };
    assert_eq!(reason, "no database");
    healthy.store(true, SeqCst);
    until("back", || fake.there()).await;
    handle.registered(Duration::from_secs(1)).await.expect("registered");
}

#[tokio::test(start_paused = true)]
async fn registry_that_shows_health_keeps_the_entry() {
    let fake = Fake::default();
    fake.set(|s| &s.shows_health, true);
    let registration =
        registration().health(|| async { CheckResult::Critical("no database".into()) });
    let _handle = fake.register(registration).await.expect("registered");
    assert!(fake.there() && fake.0.critical.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn check_that_hangs_is_critical() {
    let fake = Fake::default();
    let registration = registration().health(std::future::pending);
    let handle = fake.register(registration.retry_in_background()).await.expect("accepted");
    sleep(Duration::from_secs(6)).await;
    assert!(matches!(handle.state(), RegistrationState::Critical { .. }), "{handle:?}");
    assert!(!fake.there());
}

/// The start needs the registry, not the check: half of its time is left for the registry.
#[tokio::test(start_paused = true)]
async fn check_that_hangs_at_the_start_is_critical() {
    for shows_health in [true, false] {
        let fake = Fake::default();
        fake.set(|s| &s.shows_health, shows_health);
        let handle = fake.register(registration().health(std::future::pending)).await;
        let handle = handle.expect("critical is an answer");
        assert!(matches!(handle.state(), RegistrationState::Critical { .. }), "{handle:?}");
    }
}

/// The registry shows the instance as critical soon, although the call that reports it failed.
#[tokio::test(start_paused = true)]
async fn change_whose_call_failed_is_reported_soon() {
    let (fake, healthy) = (Fake::default(), Arc::new(AtomicBool::new(true)));
    fake.set(|s| &s.shows_health, true);
    fake.grants(crate::LeaseTtl::unlimited(Duration::from_secs(600)));
    let registration = registration().health(check(&healthy));
    let registration = registration.health_interval(Duration::from_secs(1));
    let _handle = fake.register(registration).await.expect("registered");
    fake.add(|s| &s.failing, "renew");
    healthy.store(false, SeqCst);
    until("failed", || fake.counts().1 > 0).await;
    fake.clear(|s| &s.failing);
    let took = until("shown as critical", || fake.0.critical.load(SeqCst)).await;
    assert!(took <= Duration::from_secs(1), "{took:?}");
    assert!(fake.counts().1 <= 3, "{:?}", fake.counts());
    healthy.store(true, SeqCst);
    let took = until("shown as passing", || !fake.0.critical.load(SeqCst)).await;
    assert!(took <= Duration::from_millis(1100), "{took:?}");
}

/// A check that hangs is reported before the TTL ends, whatever the TTL.
#[tokio::test(start_paused = true)]
async fn check_that_hangs_is_reported_within_a_short_ttl() {
    let (fake, hangs) = (Fake::default(), Arc::new(AtomicBool::new(false)));
    fake.set(|s| &s.shows_health, true);
    fake.grants(crate::LeaseTtl::new(Duration::from_secs(5)));
    let is_hanging = Arc::clone(&hangs);
    let registration = registration().health(move || {
        let hangs = is_hanging.load(SeqCst);
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            CheckResult::Passing
        }
    });
    let handle = fake.register(registration).await.expect("registered");
    sleep(Duration::from_secs(10)).await;
    hangs.store(true, SeqCst);
    let took = until("shown as critical", || fake.0.critical.load(SeqCst)).await;
    assert!(took <= Duration::from_secs(4), "{took:?}");
    sleep(Duration::from_secs(60)).await;
    let RegistrationState::Critical { reason } = handle.state() else { panic!("{handle:?}") };
    assert!(reason.starts_with("no answer of the health check within 1.66"), "{reason}");
    assert_eq!((fake.counts().0, handle.stats().lost), (1, 0), "never lost");
}

#[tokio::test(start_paused = true)]
async fn critical_state_is_published_where_the_registry_shows_health() {
    let (fake, healthy) = (Fake::default(), Arc::new(AtomicBool::new(true)));
    fake.set(|s| &s.shows_health, true);
    let registration = registration().health(check(&healthy));
    let mut handle = fake.register(registration).await.expect("registered");
    healthy.store(false, SeqCst);
    let state = handle.changed().await;
    assert!(matches!(&state, RegistrationState::Critical { reason } if reason == "no database"));
    healthy.store(true, SeqCst);
    assert!(matches!(handle.changed().await, RegistrationState::Registered));
    assert_eq!(fake.counts().0, 1, "the entry was there all the time");
}

/// Its entry ends with the TTL instead: nothing renews what should not be there.
#[tokio::test(start_paused = true)]
async fn critical_instance_that_cannot_be_withdrawn_is_not_renewed() {
    let (fake, healthy) = (Fake::default(), Arc::new(AtomicBool::new(true)));
    let registration = registration().health(check(&healthy));
    let handle = fake.register(registration).await.expect("registered");
    fake.add(|s| &s.failing, "withdraw");
    healthy.store(false, SeqCst);
    sleep(TTL).await;
    let (_, renewed, withdrawn) = fake.counts();
    assert!(matches!(handle.state(), RegistrationState::Critical { .. }), "{handle:?}");
    assert!(withdrawn >= 2, "{withdrawn} attempts");
    sleep(TTL).await;
    assert_eq!(fake.counts().1, renewed);
    fake.clear(|s| &s.failing);
    until("withdrawn", || !fake.there()).await;
    let (_, _, withdrawn) = fake.counts();
    sleep(TTL * 4).await;
    assert_eq!(fake.counts().2, withdrawn, "withdrawn once");
    healthy.store(true, SeqCst);
    until("back", || fake.there()).await;
}

#[tokio::test(start_paused = true)]
async fn interval_of_checks_changes_no_interval_of_renewals() {
    let (fake, n_checks) = (Fake::default(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let checks = Arc::clone(&n_checks);
    let registration = registration().health(move || {
        checks.fetch_add(1, SeqCst);
        async { CheckResult::Passing }
    });
    let _handle = fake
        .register(registration.health_interval(Duration::from_secs(1)))
        .await
        .expect("registered");
    sleep(TTL * 10).await;
    let renewed = fake.counts().1;
    assert!((29..=34).contains(&renewed), "{renewed} renewals in ten TTLs");
    let checks = n_checks.load(SeqCst);
    assert!((140..=160).contains(&checks), "{checks} checks in 150 s");
}

#[tokio::test(start_paused = true)]
async fn withdrawal_that_failed_is_repeated_soon_and_with_pauses() {
    let (fake, healthy) = (Fake::default(), Arc::new(AtomicBool::new(true)));
    fake.grants(crate::LeaseTtl::new(Duration::from_secs(600)));
    let _handle = fake.register(registration().health(check(&healthy))).await.expect("registered");
    fake.add(|s| &s.failing, "withdraw");
    healthy.store(false, SeqCst);
    until("failed", || fake.counts().2 > 0).await;
    sleep(Duration::from_secs(2)).await;
    assert!((3..30).contains(&fake.counts().2), "{:?}: attempts in 2 s", fake.counts());
    fake.clear(|s| &s.failing);
    let took = until("withdrawn", || !fake.there()).await;
    assert!(took <= Duration::from_secs(20), "{took:?}");
}

/// The first answer was the critical one: what follows has the pauses of any other outage.
#[tokio::test(start_paused = true)]
async fn recovery_during_an_outage_is_announced_within_one_renewal() {
    let (fake, healthy) = (Fake::default(), Arc::new(AtomicBool::new(true)));
    let registration =
        registration().health(check(&healthy)).health_interval(Duration::from_secs(1));
    let _handle = fake.register(registration).await.expect("registered");
    for outage in 60..80 {
        healthy.store(false, SeqCst);
        until("withdrawn", || !fake.there()).await;
        fake.set(|s| &s.down, true);
        healthy.store(true, SeqCst);
        sleep(Duration::from_secs(outage)).await;
        fake.set(|s| &s.down, false);
        let took = until("back", || fake.there()).await;
        assert!(took <= TTL / 3 + Duration::from_millis(100), "{took:?} after {outage} s");
    }
}
