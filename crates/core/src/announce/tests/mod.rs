mod ending;
mod fake;
mod first;
mod health;
mod limits;
mod ownership;
mod updating;
mod view;

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
use crate::{CheckResult, HealthCheck, Instance, RegistrationState};

fn registration() -> Registration {
    Registration::new("s", Instance::new("127.0.0.1", 80))
}

/// Passing while `healthy`.
fn check(healthy: &Arc<AtomicBool>) -> impl HealthCheck + use<> {
    let healthy = Arc::clone(healthy);
    move || {
        let healthy = healthy.load(SeqCst);
        async move {
            if healthy { CheckResult::Passing } else { CheckResult::Critical("no database".into()) }
        }
    }
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
async fn registration_is_renewed_three_times_within_its_ttl() {
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
async fn unknown_entry_is_announced_again_within_one_renewal() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.there, false);
    fake.set(|s| &s.forgotten, true);
    let took = until("back", || fake.there()).await;
    assert!(took <= TTL / 3 + Duration::from_millis(100), "{took:?}");
    assert!(matches!(handle.state(), RegistrationState::Registered));
}

#[tokio::test(start_paused = true)]
async fn pushed_loss_is_announced_again_immediately() {
    let fake = Fake::default();
    let _handle = fake.register(registration()).await.expect("registered");
    sleep(Duration::from_secs(2)).await;
    fake.set(|s| &s.there, false);
    fake.0.lost.notify_one();
    let took = until("back", || fake.there()).await;
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn loss_after_each_announcement_is_followed_by_pauses() {
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
async fn outage_of_three_ttls_is_survived_with_bounded_attempts() {
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
async fn failed_renewal_is_no_loss_while_the_ttl_runs() {
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
async fn suspended_process_announces_again_immediately() {
    let fake = Fake::default();
    let _handle = fake.register(registration()).await.expect("registered");
    sleep(Duration::from_secs(1)).await;
    fake.set(|s| &s.there, false);
    advance(TTL * 2).await;
    let took = until("back", || fake.there()).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(fake.counts(), (2, 0, 0), "no renewal of what must be gone");
}

/// The connection is stuck, and the next one is not.
#[tokio::test(start_paused = true)]
async fn renewal_that_hangs_leaves_time_for_another_one() {
    let fake = Fake::default();
    let ttl = Duration::from_secs(6);
    fake.grants(crate::LeaseTtl::new(ttl));
    let handle = fake.register(registration()).await.expect("registered");
    fake.add(|s| &s.hanging, "renew");
    until("hanging", || fake.counts().1 > 0).await;
    sleep(Duration::from_secs(1)).await;
    fake.clear(|s| &s.hanging);
    sleep(ttl).await;
    assert_eq!((handle.stats().lost, fake.counts().0), (0, 1), "{handle:?}");
}
