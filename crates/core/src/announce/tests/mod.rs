mod fake;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{Instant, advance, sleep, timeout};

use self::fake::{Fake, TTL};
use super::*;
use crate::{Health, Instance};

fn registration() -> Registration {
    Registration::new("s", Instance::new("127.0.0.1", 80))
}

async fn until(what: &str, wanted: impl Fn() -> bool + Sync) -> Duration {
    let start = Instant::now();
    let reached = timeout(Duration::from_secs(3600), async {
        while !wanted() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    reached.await.unwrap_or_else(|_| panic!("never: {what}"));
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_registration_is_renewed_three_times_within_its_ttl() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    sleep(TTL * 10).await;
    let (announced, renewed, _) = fake.counts();
    assert_eq!(announced, 1);
    assert!((29..=34).contains(&renewed), "{renewed} renewals in ten TTLs");
    handle.deregister().await.expect("withdrawn");
    assert!(!fake.there());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_entry_is_announced_again_within_one_renewal() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.there, false);
    fake.set(|s| &s.forgotten, true);
    let took = until("back", || fake.there()).await;
    assert!(took <= TTL / 3 + Duration::from_millis(100), "{took:?}");
    assert!(matches!(handle.state(), RegistrationState::Registered));
}

#[tokio::test(start_paused = true)]
async fn a_pushed_loss_is_announced_again_at_once() {
    let fake = Fake::default();
    let _handle = fake.register(registration()).await.expect("registered");
    sleep(Duration::from_secs(2)).await;
    fake.set(|s| &s.there, false);
    fake.0.lost.notify_one();
    let took = until("back", || fake.there()).await;
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn two_who_fight_over_an_entry_do_it_with_pauses() {
    let fake = Fake::default();
    let _handle = fake.register(registration()).await.expect("registered");
    for _ in 0..1000 {
        fake.0.lost.notify_one();
        sleep(Duration::from_millis(10)).await;
    }
    let (announced, ..) = fake.counts();
    assert!(announced < 60, "{announced} announcements in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_three_ttls_is_survived_with_jittered_bounded_attempts() {
    let fake = Fake::default();
    let mut handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.down, true);
    sleep(TTL * 3).await;
    assert!(matches!(handle.state(), RegistrationState::Lost { .. }));
    let (announced, renewed, _) = fake.counts();
    assert!((6..60).contains(&(announced + renewed)), "{announced} + {renewed} attempts");
    fake.set(|s| &s.there, false);
    fake.set(|s| &s.down, false);
    let took = until("back", || fake.there()).await;
    assert!(took <= TTL / 3 + Duration::from_millis(100), "{took:?}");
    while !matches!(handle.state(), RegistrationState::Registered) {
        handle.changed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_is_no_loss_while_the_ttl_runs() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.down, true);
    sleep(TTL / 2).await;
    assert!(matches!(handle.state(), RegistrationState::Registered));
    fake.set(|s| &s.down, false);
    sleep(TTL * 2).await;
    assert_eq!(fake.counts().0, 1, "renewed, not announced again");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_process_announces_again_at_once() {
    let fake = Fake::default();
    let _handle = fake.register(registration()).await.expect("registered");
    sleep(Duration::from_secs(1)).await;
    fake.set(|s| &s.there, false);
    advance(TTL * 2).await;
    let took = until("back", || fake.there()).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(fake.counts(), (2, 0, 0), "no renewal of what must be gone");
}

#[tokio::test(start_paused = true)]
async fn failing_fast_returns_the_error_and_leaves_nothing_running() {
    let fake = Fake::default();
    fake.set(|s| &s.down, true);
    let start = Instant::now();
    let error = fake.register(registration()).await.expect_err("down");
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Unavailable, false));
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    sleep(Duration::from_secs(10)).await;
    let counts = fake.counts();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(fake.counts(), counts);
}

#[tokio::test(start_paused = true)]
async fn a_denied_first_registration_fails_without_waiting() {
    let fake = Fake::default();
    fake.set(|s| &s.denied, true);
    let start = Instant::now();
    let error = fake.register(registration()).await.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(start.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn retrying_in_the_background_returns_at_once_and_registers_later() {
    let fake = Fake::default();
    fake.set(|s| &s.down, true);
    let handle = fake.register(registration().retry_in_background()).await.expect("at once");
    sleep(Duration::from_secs(3)).await;
    let RegistrationState::Registering { error: Some(error) } = handle.state() else {
        panic!("{handle:?}")
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    fake.set(|s| &s.down, false);
    handle.registered(Duration::from_secs(10)).await.expect("registered later");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_nobody_can_reach_is_refused() {
    let fake = Fake::default();
    for instance in
        [Instance::new("0.0.0.0", 80), Instance::new("::", 80), Instance::new("10.0.0.1", 0)]
    {
        let error = fake.register(Registration::new("s", instance)).await.expect_err("unreachable");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    assert_eq!(fake.counts(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_empty_name_is_refused() {
    let fake = Fake::default();
    let instance = Instance::new("127.0.0.1", 80);
    for registration in
        [Registration::new("", instance.clone()), Registration::new("s", instance.with_id(""))]
    {
        let error = fake.register(registration).await.expect_err("no name");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[tokio::test(start_paused = true)]
async fn a_health_check_that_panics_is_critical_and_asked_again() {
    let (fake, panics) = (Fake::default(), Arc::new(AtomicBool::new(false)));
    let check = Arc::clone(&panics);
    let check = move || {
        let panics = check.load(SeqCst);
        async move { if panics { panic!("in a check") } else { Health::Passing } }
    };
    let registration = registration().health(check).health_every(Duration::from_secs(1));
    let _handle = fake.register(registration).await.expect("registered");
    panics.store(true, SeqCst);
    until("withheld", || !fake.there()).await;
    panics.store(false, SeqCst);
    until("back", || fake.there()).await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_ends_by_a_panic_does_not_look_registered() {
    let fake = Fake::default();
    let mut handle = fake.register(registration()).await.expect("registered");
    fake.0.n_running.store(1, SeqCst); // the next call panics in the announcer
    let state = handle.changed().await;
    assert!(matches!(state, RegistrationState::Lost { .. }), "{state:?}");
}

/// T15.
#[tokio::test(start_paused = true)]
async fn a_deregistration_that_hangs_is_bounded_and_no_renewal_follows_it() {
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

/// T15: C30 of the Consul facts is a heartbeat that came after the deregistration.
#[tokio::test(start_paused = true)]
async fn a_renewal_in_flight_ends_before_the_withdrawal() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    until("a renewal in flight", || fake.0.n_running.load(SeqCst) == 1).await;
    handle.deregister().await.expect("withdrawn");
    assert!(!fake.there());
    let (_, renewed, withdrawn) = fake.counts();
    assert_eq!((renewed, withdrawn), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_deregistration_during_an_outage_leaves_nothing_behind() {
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
async fn a_dropped_handle_withdraws_in_the_background() {
    let fake = Fake::default();
    drop(fake.register(registration()).await.expect("registered"));
    until("gone", || !fake.there()).await;
}

#[tokio::test(start_paused = true)]
async fn closing_the_registrar_waits_for_the_withdrawals() {
    let (fake, tasks) = (Fake::default(), Tasks::new());
    let config = AnnounceConfig::new("fake");
    let handle = announce(fake.clone(), registration(), config, &tasks).await.expect("registered");
    tasks.close().await;
    assert!(!fake.there());
    assert!(matches!(handle.state(), RegistrationState::Deregistered));
    handle.deregister().await.expect("done already");
}

#[tokio::test(start_paused = true)]
async fn an_update_overwrites_and_survives_a_new_announcement() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    handle.update(|instance| instance.with_weight(7)).await.expect("accepted");
    assert_eq!(fake.0.weight.swap(0, SeqCst), 7);
    fake.set(|s| &s.forgotten, true);
    until("announced again", || fake.0.weight.load(SeqCst) == 7).await;
    assert_eq!(fake.counts().2, 0, "never withdrawn");
    let error = handle.update(|_| Instance::new("127.0.0.1", 81)).await.expect_err("another");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn an_update_during_an_outage_reports_and_stays_desired() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.down, true);
    let error = handle.update(|instance| instance.with_weight(9)).await.expect_err("down");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    fake.set(|s| &s.down, false);
    until("announced", || fake.0.weight.load(SeqCst) == 9).await;
}

#[tokio::test(start_paused = true)]
async fn a_critical_instance_is_withheld_until_it_passes() {
    let (fake, healthy) = (Fake::default(), Arc::new(AtomicBool::new(true)));
    let check = Arc::clone(&healthy);
    let check = move || {
        let healthy = check.load(SeqCst);
        async move { if healthy { Health::Passing } else { Health::Critical("no database".into()) } }
    };
    let registration = registration().health(check).health_every(Duration::from_secs(1));
    let handle = fake.register(registration).await.expect("registered");
    healthy.store(false, SeqCst);
    let took = until("withheld", || !fake.there()).await;
    assert!(took <= Duration::from_millis(1100), "{took:?}");
    sleep(TTL * 2).await;
    let RegistrationState::Withheld { reason } = handle.state() else { panic!("{handle:?}") };
    assert_eq!(reason, "no database");
    healthy.store(true, SeqCst);
    until("back", || fake.there()).await;
    handle.registered(Duration::from_secs(1)).await.expect("registered");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_shows_health_is_told_and_keeps_the_entry() {
    let fake = Fake::default();
    fake.set(|s| &s.shows_health, true);
    let registration = registration().health(|| async { Health::Critical("no database".into()) });
    let _handle = fake.register(registration).await.expect("registered");
    assert!(fake.there() && fake.0.critical.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_health_check_that_hangs_is_critical() {
    let fake = Fake::default();
    let registration = registration().health(std::future::pending);
    let handle = fake.register(registration.retry_in_background()).await.expect("at once");
    sleep(Duration::from_secs(6)).await;
    assert!(matches!(handle.state(), RegistrationState::Withheld { .. }), "{handle:?}");
    assert!(!fake.there());
}
