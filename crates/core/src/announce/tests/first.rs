//! The first registration: bounded or in the background, refused or repeated.

use super::*;
use crate::LeaseTtl;

#[tokio::test(start_paused = true)]
async fn failing_fast_returns_the_error_and_leaves_nothing_running() {
    let fake = Fake::default();
    fake.set(|s| &s.down, true);
    let start = Instant::now();
    let error = fake.register(registration()).await.expect_err("down");
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Unavailable, false));
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert!(fake.counts().0 >= 8, "{:?}: pauses of a second at most", fake.counts());
    sleep(Duration::from_secs(10)).await;
    let counts = fake.counts();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(fake.counts(), counts);
}

#[tokio::test(start_paused = true)]
async fn denied_first_registration_fails_without_waiting() {
    let fake = Fake::default();
    fake.set(|s| &s.denied, true);
    let start = Instant::now();
    let error = fake.register(registration()).await.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(start.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn retrying_in_the_background_returns_and_registers_later() {
    let fake = Fake::default();
    fake.set(|s| &s.down, true);
    let mut handle = fake.register(registration().retry_in_background()).await.expect("accepted");
    sleep(Duration::from_secs(3)).await;
    let RegistrationState::Registering { error: Some(error) } = handle.state() else {
        panic!("{handle:?}")
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    fake.set(|s| &s.down, false);
    handle.registered(Duration::from_secs(10)).await.expect("registered later");
}

#[tokio::test(start_paused = true)]
async fn unreachable_address_is_refused() {
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
async fn empty_name_is_refused() {
    let fake = Fake::default();
    let instance = Instance::new("127.0.0.1", 80);
    for registration in
        [Registration::new("", instance.clone()), Registration::new("s", instance.with_id(""))]
    {
        let error = fake.register(registration).await.expect_err("no name");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

/// Processes that start while the registry is down.
#[tokio::test(start_paused = true)]
async fn attempts_before_the_first_success_become_rare() {
    const N: usize = 200;
    let fakes: Vec<_> = (0..N).map(|_| Fake::default()).collect();
    let mut handles = Vec::new();
    for fake in &fakes {
        fake.set(|s| &s.down, true);
        let config = AnnounceConfig::default();
        let registration = registration().retry_in_background();
        let (announcer, tasks) = (Box::new(fake.clone()), TaskGroup::new());
        handles.push(announce("fake", announcer, registration, config, &tasks).await);
    }
    let attempts = || fakes.iter().map(|fake| fake.counts().0).collect::<Vec<_>>();
    sleep(Duration::from_secs(60)).await;
    let before = attempts();
    sleep(Duration::from_secs(600)).await;
    let per_process = attempts().into_iter().zip(before).map(|(after, before)| after - before);
    let (most, sum) = per_process.fold((0, 0), |(most, sum), n| (most.max(n), sum + n));
    assert!(sum <= N * 600 / 5, "{sum} attempts in ten minutes, at most 0.2 a second each");
    assert!(sum >= N * 600 / 15, "{sum} attempts: the pauses grow beyond their cap");
    assert!(most <= 600 / 4, "{most} attempts of one process");
}

#[tokio::test(start_paused = true)]
async fn denied_attempts_in_the_background_are_rare() {
    let fake = Fake::default();
    fake.set(|s| &s.denied, true);
    let mut handle = fake.register(registration().retry_in_background()).await.expect("accepted");
    sleep(Duration::from_secs(600)).await;
    let pause = |n| Duration::from_secs(15) * n / 4;
    for _ in 0..20 {
        let before = fake.counts().0;
        let gap = until("attempted", || fake.counts().0 > before).await;
        assert!(gap <= pause(5) + Duration::from_millis(20), "{gap:?} without an attempt");
        let gap = until("attempted again", || fake.counts().0 > before + 1).await;
        let within = pause(3)..=pause(5) + Duration::from_millis(20);
        assert!(within.contains(&gap), "{gap:?} between two attempts");
    }
    fake.set(|s| &s.denied, false);
    handle.registered(Duration::from_secs(20)).await.expect("registered");
}

#[tokio::test(start_paused = true)]
async fn registry_that_comes_back_within_the_bound_is_enough() {
    let fake = Fake::default();
    fake.set(|s| &s.down, true);
    let back = async {
        sleep(Duration::from_secs(3)).await;
        fake.set(|s| &s.down, false);
    };
    let (registered, ()) = tokio::join!(fake.register(registration()), back);
    drop(registered.expect("registered within 5 s"));
}

#[tokio::test(start_paused = true)]
async fn requested_pause_is_honoured() {
    let fake = Fake::default();
    fake.pauses(Some(Duration::from_secs(100)));
    fake.set(|s| &s.down, true);
    let mut handle = fake.register(registration().retry_in_background()).await.expect("accepted");
    sleep(Duration::from_secs(99)).await;
    assert_eq!(fake.counts().0, 1);
    fake.set(|s| &s.down, false);
    handle.registered(Duration::from_secs(30)).await.expect("registered");
}

/// A registry that requests a pause longer than the TTL does not lose the registration by that.
#[tokio::test(start_paused = true)]
async fn requested_pause_costs_no_registration() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    fake.pauses(Some(Duration::from_secs(100)));
    fake.set(|s| &s.down, true);
    until("refused once", || handle.stats().failed > 0).await;
    fake.set(|s| &s.down, false);
    sleep(TTL).await;
    assert_eq!((handle.stats().lost, handle.stats().renewed > 0), (0, true));
}

/// A backend whose attempts cost an absent registry nothing.
#[tokio::test(start_paused = true)]
async fn attempts_within_a_cap_follow_the_return_of_the_registry() {
    let fake = Fake::default();
    fake.grants(LeaseTtl::new(Duration::from_secs(60)).retried_within(Duration::from_secs(1)));
    let mut handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.down, true);
    sleep(Duration::from_secs(600)).await;
    fake.set(|s| &s.down, false);
    handle.registered(Duration::from_millis(1100)).await.expect("registered again");
}

/// The registration has succeeded: what follows is in the background.
#[tokio::test(start_paused = true)]
async fn attempts_after_a_critical_start_become_rare() {
    let (fake, healthy) = (Fake::default(), Arc::new(AtomicBool::new(false)));
    let handle = fake.register(registration().health(check(&healthy))).await.expect("withheld");
    fake.set(|s| &s.down, true);
    healthy.store(true, SeqCst);
    sleep(Duration::from_secs(60)).await;
    let before = fake.counts().0;
    sleep(Duration::from_secs(60)).await;
    let attempts = fake.counts().0 - before;
    assert!((2..=14).contains(&attempts), "{attempts} attempts in a minute, {handle:?}");
}

/// A registry that answers gets the attempts that any registry gets.
#[tokio::test(start_paused = true)]
async fn cap_of_attempts_at_an_absent_registry_holds_for_no_answer() {
    let ttl = LeaseTtl::new(Duration::from_secs(600)).retried_within(Duration::from_secs(1));
    for retry_after in [None, Some(Duration::from_secs(100))] {
        let fake = Fake::default();
        fake.grants(ttl);
        let handle = fake.register(registration()).await.expect("registered");
        fake.pauses(retry_after);
        fake.set(|s| if retry_after.is_some() { &s.down } else { &s.denied }, true);
        until("refused", || handle.stats().failed > 0).await;
        sleep(Duration::from_secs(300)).await;
        let failed = handle.stats().failed;
        assert!(failed < 40, "{failed} attempts in 5 min, {retry_after:?}");
    }
}
