//! Panics, and durations without sense: the loop outlives both.

use futures_util::future::BoxFuture;

use super::*;
use crate::{Announcement, LeaseTtl, Renewal};

#[tokio::test(start_paused = true)]
async fn panic_of_an_update_is_its_error() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    let error = handle.update(|_| panic!("in a change")).await.expect_err("panicked");
    assert_eq!(error.kind(), ErrorKind::Config);
    sleep(TTL * 2).await;
    let (announced, renewed, _) = fake.counts();
    assert_eq!((announced, renewed >= 5), (1, true), "{renewed} renewals");
    handle.update(|instance| instance.with_weight(3)).await.expect("accepted");
    handle.deregister().await.expect("withdrawn");
    assert!(!fake.there());
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_call_is_repeated_with_pauses() {
    for call in ["renew", "lost"] {
        let fake = Fake::default();
        let mut handle = fake.register(registration()).await.expect("registered");
        fake.add(|s| &s.panicking, call);
        sleep(TTL * 4).await;
        fake.set(|s| &s.there, false);
        fake.set(|s| &s.forgotten, true);
        fake.clear(|s| &s.panicking);
        let took = until("back", || fake.there()).await;
        assert!(took <= TTL / 3 + Duration::from_millis(100), "{took:?} after panics of {call}");
        let (announced, renewed, _) = fake.counts();
        assert!(announced + renewed < 80, "{announced} + {renewed} calls in a minute");
        handle.registered(TTL).await.expect("registered");
    }
}

#[tokio::test(start_paused = true)]
async fn panic_of_the_first_announcement_fails_the_registration() {
    let fake = Fake::default();
    fake.add(|s| &s.panicking, "announce");
    let error = fake.register(registration()).await.expect_err("a dead registration is no success");
    assert!(error.to_string().contains("the backend panicked"), "{error}");
    assert_eq!(error.instance().map(|id| id.as_str()), Some("127.0.0.1:80"));
}

#[tokio::test(start_paused = true)]
async fn panic_of_an_announcement_is_repeated_later() {
    let fake = Fake::default();
    fake.add(|s| &s.panicking, "announce");
    let mut handle = fake.register(registration().retry_in_background()).await.expect("accepted");
    sleep(Duration::from_secs(60)).await;
    assert!((3..=7).contains(&fake.counts().0), "{:?}", fake.counts());
    fake.clear(|s| &s.panicking);
    handle.registered(Duration::from_secs(20)).await.expect("registered");
}

#[tokio::test(start_paused = true)]
async fn panic_of_the_withdrawal_is_its_error() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    fake.add(|s| &s.panicking, "withdraw");
    let error = handle.deregister().await.expect_err("panicked");
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn lease_without_sense_is_clamped() {
    for (ttl, renewals) in [
        (LeaseTtl::unlimited(Duration::MAX), 0..=1),
        (LeaseTtl::new(Duration::MAX), 0..=1),
        (LeaseTtl::new(Duration::from_secs(i64::MAX.unsigned_abs())), 0..=1),
        (LeaseTtl::unlimited(Duration::ZERO), 500..=1200),
        (LeaseTtl::new(Duration::ZERO), 0..=1200),
    ] {
        let fake = Fake::default();
        fake.grants(ttl);
        let mut handle = fake.register(registration()).await.expect("registered");
        sleep(Duration::from_secs(60)).await;
        assert!(renewals.contains(&fake.counts().1), "{ttl:?}: {:?}", fake.counts());
        handle.registered(TTL).await.expect("registered");
        handle.deregister().await.expect("withdrawn");
    }
}

#[tokio::test(start_paused = true)]
async fn settings_without_sense_are_clamped() {
    for (duration, config) in [(Duration::MAX, Duration::MAX), (Duration::ZERO, Duration::ZERO)] {
        let fake = Fake::default();
        let registration = registration()
            .health(|| async { CheckResult::Passing })
            .health_interval(duration)
            .fail_fast(duration.max(Duration::from_secs(1)))
            .deregister_timeout(duration.max(Duration::from_secs(1)));
        let mut settings = AnnounceConfig::default();
        (settings.initial_backoff, settings.max_backoff) = (config, config);
        settings.denied_interval = config;
        (settings.health_timeout, settings.call_timeout) = (config, config);
        let tasks = TaskGroup::new();
        let handle = announce("fake", Box::new(fake.clone()), registration, settings, &tasks).await;
        let handle = handle.expect("registered");
        fake.set(|s| &s.denied, true);
        handle.update(|instance| instance.with_weight(2)).await.expect_err("denied");
        sleep(TTL).await;
        fake.set(|s| &s.denied, false);
        fake.set(|s| &s.down, true);
        fake.set(|s| &s.forgotten, true);
        let (before, _, _) = fake.counts();
        sleep(TTL * 2).await;
        let (after, _, _) = fake.counts();
        assert!(after - before < 2_000, "{} attempts with pauses of {config:?}", after - before);
        fake.set(|s| &s.down, false);
        handle.deregister().await.expect("withdrawn");
        assert!(!fake.there());
    }
}

/// Panics while futures are made, the first `n` times, and not when they are polled.
struct Hasty(usize);

impl Hasty {
    fn call<'a, T: Send + 'a>(&mut self, answer: T) -> BoxFuture<'a, T> {
        assert_eq!(std::mem::take(&mut self.0), 0, "a bug of the backend");
        Box::pin(std::future::ready(answer))
    }
}

impl Announcer for Hasty {
    fn shows_health(&self) -> bool {
        panic!("a bug of the backend")
    }

    fn announce<'a, 'b, 'c>(&'a mut self, _: &'b Announcement) -> BoxFuture<'c, Result<Renewal>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.call(Ok(Renewal::Renewed(LeaseTtl::new(TTL))))
    }

    fn renew<'a, 'b, 'c>(&'a mut self, _: &'b Announcement) -> BoxFuture<'c, Result<Renewal>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.call(Ok(Renewal::Renewed(LeaseTtl::new(TTL))))
    }

    fn withdraw<'a, 'b>(&'a mut self) -> BoxFuture<'b, Result<()>>
    where
        'a: 'b,
        Self: 'b,
    {
        self.call(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn panic_outside_of_a_future_ends_no_registration() {
    let health: fn() -> std::future::Ready<CheckResult> = || panic!("a bug of the check");
    for check in [None, Some(health)] {
        let registration = check.into_iter().fold(registration(), Registration::health);
        let config = AnnounceConfig::default();
        let tasks = TaskGroup::new();
        let registration = registration.retry_in_background();
        let handle = announce("hasty", Box::new(Hasty(1)), registration, config, &tasks).await;
        let handle = handle.expect("in the background");
        sleep(Duration::from_secs(60)).await;
        let is_critical = matches!(handle.state(), RegistrationState::Critical { .. });
        assert_eq!(is_critical, check.is_some(), "{handle:?}");
        assert!(is_critical || matches!(handle.state(), RegistrationState::Registered));
        handle.deregister().await.expect("withdrawn");
    }
}
