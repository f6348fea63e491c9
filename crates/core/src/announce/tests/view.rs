//! Views of a registration: state, errors, counters; and joined registrations.

use super::*;

#[tokio::test(start_paused = true)]
async fn state_that_was_waited_for_is_no_change() {
    let fake = Fake::default();
    fake.set(|s| &s.down, true);
    let mut handle = fake.register(registration().retry_in_background()).await.expect("accepted");
    sleep(Duration::from_secs(3)).await;
    fake.set(|s| &s.down, false);
    handle.registered(Duration::from_secs(30)).await.expect("registered");
    timeout(TTL * 3, handle.changed()).await.expect_err("nothing has changed since");
}

#[tokio::test(start_paused = true)]
async fn outage_is_one_change_and_one_loss() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    let mut watch = handle.watch();
    fake.set(|s| &s.down, true);
    let mut n_changes = 0;
    let counted = timeout(TTL * 20, async {
        loop {
            assert!(matches!(watch.changed().await, RegistrationState::Lost { .. }));
            n_changes += 1;
        }
    });
    counted.await.expect_err("it counts to the end");
    assert_eq!((n_changes, watch.stats().lost), (1, 1));
    assert!(watch.stats().failed > 20, "{:?}", watch.stats());
    assert_eq!(watch.last_error().map(|error| error.kind()), Some(ErrorKind::Unavailable));
    let RegistrationState::Lost { since, .. } = watch.state() else { panic!("{watch:?}") };
    assert!(since.elapsed() > TTL * 18, "since its beginning: {:?}", since.elapsed());
}

/// Nothing comes after it, whatever was lost before.
#[test]
fn end_of_the_runtime_is_a_change_of_a_lost_registration() {
    let paused = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async { tokio::time::pause() });
        runtime
    };
    let (first, second) = (paused(), paused());
    let fake = Fake::default();
    let (handle, mut watch) = first.block_on(async {
        let handle = fake.register(registration()).await.expect("registered");
        let mut watch = handle.watch();
        fake.set(|s| &s.down, true);
        assert!(matches!(watch.changed().await, RegistrationState::Lost { .. }));
        (handle, watch)
    });
    drop(first);
    let state = second.block_on(async { timeout(TTL, watch.changed()).await });
    let RegistrationState::Lost { error, .. } = state.expect("in time") else {
        panic!("{watch:?}")
    };
    assert_eq!(error.kind(), ErrorKind::Closed);
    drop(handle);
}

#[tokio::test(start_paused = true)]
async fn counters_count_what_was_accepted() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    handle.update(|instance| instance.with_weight(3)).await.expect("accepted");
    sleep(TTL * 2).await;
    let (announced, renewed, _) = fake.counts();
    let stats = handle.stats();
    assert_eq!((stats.announced, stats.renewed), (announced as u64, renewed as u64));
    assert_eq!((stats.failed, stats.lost), (0, 0));
    assert!(handle.last_error().is_none());
}

#[tokio::test(start_paused = true)]
async fn view_outlives_the_handle_and_observes_the_end() {
    let fake = Fake::default();
    let handle = fake.register(registration()).await.expect("registered");
    let mut watch = handle.watch();
    handle.deregister().await.expect("withdrawn");
    assert!(matches!(watch.changed().await, RegistrationState::Deregistered));
    let error = watch.update(|instance| instance).await.expect_err("over");
    assert_eq!(error.kind(), ErrorKind::Closed);
    let error = watch.registered(TTL).await.expect_err("over");
    assert_eq!(error.kind(), ErrorKind::Closed);
    let error = watch.first_answer(TTL).await.expect_err("over");
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn view_does_not_keep_the_registration_up() {
    let fake = Fake::default();
    let watch = fake.register(registration()).await.expect("registered").watch();
    until("gone", || !fake.there()).await;
    assert!(matches!(watch.state(), RegistrationState::Deregistered));
}

#[tokio::test(start_paused = true)]
async fn joined_registrations_are_updated_watched_and_ended_together() {
    let (old, new) = (Fake::default(), Fake::default());
    let mut handle = RegistrationHandle::join(
        old.register(registration()).await.expect("registered"),
        new.register(registration()).await.expect("registered"),
    );
    let weight = "7".to_owned();
    let change = move |instance: Instance| instance.with_weight(weight.parse().expect("a number"));
    handle.update(change).await.expect("accepted by both");
    assert_eq!((old.weight(), new.weight()), (7, 7));
    assert_eq!(handle.stats().announced, 4);
    new.set(|s| &s.down, true);
    assert!(matches!(handle.changed().await, RegistrationState::Lost { .. }));
    handle.update(|instance| instance.with_weight(8)).await.expect_err("one of them is down");
    assert_eq!(old.weight(), 8);
    handle.registered(Duration::from_secs(1)).await.expect_err("one of them is lost");
    new.set(|s| &s.down, false);
    handle.registered(TTL).await.expect("registered");
    assert_eq!(new.weight(), 8);
    handle.deregister().await.expect("withdrawn");
    assert!(!old.there() && !new.there());
}

#[test]
fn loop_that_ends_with_its_runtime_leaves_no_registered_state() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime")
    };
    let fake = Fake::default();
    let first = runtime();
    let mut handle = first.block_on(fake.register(registration())).expect("registered");
    drop(first);
    let state = runtime().block_on(handle.changed());
    assert!(matches!(state, RegistrationState::Lost { .. }), "{state:?}");
    let error = runtime().block_on(handle.first_answer(TTL)).expect_err("not alive");
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn last_error_of_joined_registrations_is_the_latest() {
    let (old, new) = (Fake::default(), Fake::default());
    let handle = RegistrationHandle::join(
        old.register(registration()).await.expect("registered"),
        new.register(registration()).await.expect("registered"),
    );
    let kind = || handle.last_error().map(|error| error.kind());
    old.set(|s| &s.down, true);
    sleep(TTL).await;
    old.set(|s| &s.down, false);
    assert_eq!(kind(), Some(ErrorKind::Unavailable));
    new.set(|s| &s.denied, true);
    sleep(TTL).await;
    assert_eq!(kind(), Some(ErrorKind::Denied));
}
