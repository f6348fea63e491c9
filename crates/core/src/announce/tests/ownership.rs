//! Another registration writes its entry in the place of this one's.

use super::*;
use crate::LeaseTtl;

async fn taken_over(registration: Registration) -> (Fake, RegistrationHandle) {
    let fake = Fake::default();
    let mut handle = fake.register(registration).await.expect("registered");
    sleep(Duration::from_secs(2)).await;
    fake.set(|s| &s.is_taken, true);
    fake.0.lost.notify_one();
    let state = handle.changed().await;
    assert!(matches!(&state, RegistrationState::TakenOver { by } if by == "another"), "{state:?}");
    (fake, handle)
}

#[tokio::test(start_paused = true)]
async fn first_announcement_takes_over_from_a_predecessor() {
    let fake = Fake::default();
    fake.set(|s| &s.is_taken, true);
    let handle = fake.register(registration()).await.expect("registered");
    assert!(matches!(handle.state(), RegistrationState::Registered), "{handle:?}");
}

#[tokio::test(start_paused = true)]
async fn successor_is_left_alone() {
    let (fake, handle) = taken_over(registration()).await;
    let before = fake.counts();
    let error = handle.update(|instance| instance.with_weight(7)).await.expect_err("not ours");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    sleep(TTL * 10).await;
    assert!(fake.0.is_taken.load(SeqCst));
    let (announced, renewed, withdrawn) = fake.counts();
    assert!((29..=35).contains(&(announced - before.0)), "{announced}: once in a renewal interval");
    assert_eq!((renewed, withdrawn), (before.1, 0));
    assert_eq!(handle.stats().lost, 1);
}

#[tokio::test(start_paused = true)]
async fn takeover_is_noticed_by_a_renewal() {
    let fake = Fake::default();
    let mut handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.is_taken, true);
    let state = timeout(TTL / 3, handle.changed()).await.expect("within one renewal");
    assert!(matches!(state, RegistrationState::TakenOver { .. }), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn registration_is_back_when_the_successor_is_gone() {
    for is_pushed in [true, false] {
        let (fake, mut handle) = taken_over(registration()).await;
        sleep(if is_pushed { TTL / 10 } else { TTL * 3 }).await;
        fake.set(|s| &s.there, false);
        fake.set(|s| &s.is_taken, false);
        if is_pushed {
            fake.0.lost.notify_one();
        }
        let took = until("back", || fake.there()).await;
        let bound = if is_pushed { TTL / 150 } else { TTL / 3 };
        assert!(took <= bound + Duration::from_millis(20), "{took:?}, pushed: {is_pushed}");
        assert!(matches!(handle.changed().await, RegistrationState::Registered));
        assert_eq!(handle.stats().lost, 1, "by the takeover, pushed: {is_pushed}");
    }
}

#[tokio::test(start_paused = true)]
async fn takeover_reported_again_costs_nothing() {
    let (fake, handle) = taken_over(registration()).await;
    let before = fake.counts();
    for _ in 0..1000 {
        fake.0.lost.notify_one();
        sleep(Duration::from_millis(10)).await;
    }
    let announced = fake.counts().0 - before.0;
    assert!((1..=3).contains(&announced), "{announced} announcements in 10 s");
    assert!(matches!(handle.state(), RegistrationState::TakenOver { .. }));
}

#[tokio::test(start_paused = true)]
async fn reclaimed_entry_is_taken_back_with_pauses() {
    let (fake, mut handle) = taken_over(registration().reclaim(true)).await;
    assert!(matches!(handle.changed().await, RegistrationState::Registered));
    let before = fake.counts().0;
    for _ in 0..1000 {
        fake.set(|s| &s.is_taken, true);
        fake.0.lost.notify_one();
        sleep(Duration::from_millis(10)).await;
    }
    let fought = fake.counts().0 - before;
    assert!((2..60).contains(&fought), "{fought} announcements in ten seconds");
}

/// What costs an absent registry nothing costs a live one.
#[tokio::test(start_paused = true)]
async fn fight_for_an_entry_has_pauses_above_the_cap_of_an_outage() {
    let fake = Fake::default();
    fake.grants(LeaseTtl::new(Duration::from_secs(60)).retried_within(Duration::from_secs(1)));
    let _handle = fake.register(registration().reclaim(true)).await.expect("registered");
    for _ in 0..6000 {
        fake.set(|s| &s.is_taken, true);
        fake.0.lost.notify_one();
        sleep(Duration::from_millis(100)).await;
    }
    let fought = fake.counts().0;
    assert!((10..200).contains(&fought), "{fought} announcements in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn outage_does_not_end_a_takeover() {
    let (fake, handle) = taken_over(registration()).await;
    fake.set(|s| &s.down, true);
    sleep(TTL * 3).await;
    assert!(matches!(handle.state(), RegistrationState::TakenOver { .. }), "{handle:?}");
}

#[tokio::test(start_paused = true)]
async fn status_of_an_operator_is_shown_until_it_ends() {
    let fake = Fake::default();
    let mut handle = fake.register(registration()).await.expect("registered");
    fake.set(|s| &s.is_overridden, true);
    let state = timeout(TTL, handle.changed()).await.expect("within one renewal");
    assert_eq!(state.to_string(), "overridden by an operator: OUT");
    handle.update(|instance| instance.with_weight(7)).await.expect("accepted all the same");
    timeout(TTL * 2, handle.changed()).await.expect_err("no change by renewals and updates");
    handle.registered(TTL).await.expect("it is registered");
    fake.set(|s| &s.is_overridden, false);
    let state = timeout(TTL, handle.changed()).await.expect("within one renewal");
    assert!(matches!(state, RegistrationState::Registered), "{state:?}");
    assert_eq!(handle.stats().lost, 0);
}
