//! A set is fresh while something proves it; a loss is accepted when confirmed.

use super::*;
use crate::Freshness;
use crate::{Entries, Sink};

fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn n_confirms(source: &Scripted) -> usize {
    source.asked().iter().filter(|mode| **mode == ReadMode::Confirm).count()
}

#[tokio::test(start_paused = true)]
async fn confirm_that_fails_is_repeated_until_one_succeeds() {
    let none = || Answer::Ports(vec![]);
    let source = Scripted::new([
        Answer::Ports(vec![1, 2, 3, 4]),
        none(),
        Answer::Hang,
        none(),
        Answer::Hang,
        Answer::Error(ErrorKind::Unavailable),
        Answer::Error(ErrorKind::Unavailable),
        none(),
    ]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    subscription.snapshots_until(|s| s.held().len() == 4).await;
    subscription.snapshots_until(|s| s.held().is_empty()).await;
    let asked = source.asked();
    assert!(asked[1..].iter().all(|mode| *mode != ReadMode::Full), "{asked:?}");
    assert_eq!(n_confirms(&source), 4, "half-way, two that failed, and one more");
}

#[tokio::test(start_paused = true)]
async fn polled_source_is_confirmed_before_its_next_poll() {
    let source =
        Scripted::new([Answer::Polled(vec![1, 2, 3, 4], s(300)), Answer::Polled(vec![1], s(300))]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    subscription.refresh();
    subscription.snapshots_until(|s| s.held().len() == 3).await;
    let held_at = Instant::now();
    subscription.snapshots_until(|s| s.held().is_empty()).await;
    assert!((s(10)..s(11)).contains(&held_at.elapsed()), "{:?}", held_at.elapsed());
    assert_eq!(n_confirms(&source), 2);
}

#[tokio::test(start_paused = true)]
async fn nudge_replaces_no_confirm() {
    let source = Scripted::new([
        Answer::Polled(vec![1, 2, 3, 4], s(300)),
        Answer::Polled(vec![], s(300)),
        Answer::Polled(vec![], s(300)),
        Answer::Error(ErrorKind::Unavailable),
        Answer::Error(ErrorKind::Unavailable),
        Answer::Error(ErrorKind::Unavailable),
    ]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    subscription.refresh();
    subscription.snapshots_until(|s| s.held().len() == 4).await;
    while !subscription.snapshot().held().is_empty() {
        subscription.refresh();
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(source.asked().last(), Some(&ReadMode::Confirm));
}

#[tokio::test(start_paused = true)]
async fn proof_of_life_advances_the_age_and_wakes_no_subscriber() {
    let source = Scripted::new([Answer::Ports(vec![1]), Answer::Unchanged, Answer::Unchanged]);
    let mut subscription = source.follow().subscribe();
    let first = ready(&mut subscription).await;
    let read_at = first.as_of().expect("read");
    timeout(s(5), subscription.changed()).await.expect_err("no change");
    assert!(first.as_of() > Some(read_at), "live in every clone");
    assert!(source.asked()[1..].iter().all(|mode| *mode == ReadMode::Changed));
}

#[tokio::test(start_paused = true)]
async fn trouble_is_stale_and_keeps_the_position() {
    let source = Scripted::new([
        Answer::Ports(vec![1]),
        Answer::Trouble,
        Answer::Trouble,
        Answer::Unchanged,
    ]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    subscription.snapshots_until(|s| !s.freshness().is_fresh()).await;
    subscription.snapshots_until(|s| s.freshness().is_fresh()).await;
    let changed = ReadMode::Changed;
    assert_eq!(source.asked()[..4], [ReadMode::Full, changed, changed, changed]);
}

#[tokio::test(start_paused = true)]
async fn proof_of_life_before_a_set_is_an_error() {
    let source = Scripted::new([Answer::Unchanged, Answer::Ports(vec![1])]);
    let mut subscription = source.follow().subscribe();
    let seen = subscription.snapshots_until(|s| s.freshness().error().is_some()).await;
    assert!(matches!(seen.freshness(), Freshness::NeverSynced { .. }));
    assert_eq!(ready(&mut subscription).await.instances().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn silent_source_is_verified_and_stays_fresh() {
    let source = Scripted::new([Answer::Ports(vec![1])]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    timeout(s(600), subscription.changed()).await.expect_err("fresh for ten minutes");
    let verified = source.asked().iter().filter(|mode| **mode == ReadMode::Verify).count();
    assert!((5..=8).contains(&verified), "{verified} reads");
    // A wait follows each immediately.
    let pauses: Vec<_> = source.gaps().into_iter().filter(|gap| *gap > s(1)).collect();
    let in_time = s(72)..=s(120) - s(30);
    assert!(pauses.iter().all(|it| in_time.contains(it)), "{pauses:?}: with time for an answer");
}

#[tokio::test(start_paused = true)]
async fn source_that_hangs_is_stale_within_its_bound() {
    let source = Scripted::new([Answer::Ports(vec![1]), Answer::Hang, Answer::Hang]);
    let config = FollowConfig { max_silence: Some(s(40)), ..FollowConfig::default() };
    let mut subscription = source.follow_with(config).subscribe();
    ready(&mut subscription).await;
    let read_at = Instant::now();
    let stale = subscription.snapshots_until(|s| !s.freshness().is_fresh()).await;
    assert!(read_at.elapsed() <= s(40), "{:?}", read_at.elapsed());
    assert_eq!(stale.freshness().error().map(Error::kind), Some(ErrorKind::Timeout));
}

/// Its answer after the time in which it was to be fresh is not cut.
#[tokio::test(start_paused = true)]
async fn nudge_of_a_source_that_is_polled_rarely_is_answered() {
    let every = s(300);
    let source = Scripted::new([Answer::Polled(vec![1], every), Answer::Polled(vec![1, 2], every)]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    sleep(s(200)).await;
    subscription.refresh();
    sleep(s(20)).await;
    let snapshot = subscription.snapshot();
    assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
    assert_eq!(source.asked(), [ReadMode::Full, ReadMode::Verify]);
    assert_eq!(subscription.stats().errors, 0);
}

/// What is stale already is verified for the whole bound, by its cause and with its position.
#[tokio::test(start_paused = true)]
async fn long_trouble_keeps_cause_and_position() {
    let trouble = (0..1000).flat_map(|_| [Answer::Hang, Answer::Trouble]);
    let source = Scripted::new([Answer::Ports(vec![1])].into_iter().chain(trouble));
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    sleep(s(600)).await;
    let asked = source.asked();
    assert!(asked.contains(&ReadMode::Verify), "{asked:?}");
    assert!(asked[1..].iter().all(|mode| *mode != ReadMode::Full), "{asked:?}");
    let snapshot = subscription.snapshot();
    let error = snapshot.freshness().error().expect("stale");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test(start_paused = true)]
async fn sink_that_panics_while_it_waits_does_not_spin() {
    struct Panicking(Arc<Mutex<usize>>);
    impl Sink<Instance> for Panicking {
        fn set(&mut self, _entries: Entries<Instance>) {}
        fn unchanged(&mut self, _mode: ReadMode) {}
        fn failed(&mut self, _error: Error) {}
        async fn due(&mut self) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            panic!("a bug of the sink");
        }
    }
    let source = Scripted::new([]);
    let n = Arc::<Mutex<usize>>::default();
    let (tasks, sink) = (crate::TaskGroup::new(), Panicking(Arc::clone(&n)));
    let (config, nudge) = (FollowConfig::default(), Arc::default());
    tasks.spawn(|stop| follow("test", source, sink, config, nudge, stop));
    sleep(s(60)).await;
    let n = *n.lock().unwrap_or_else(PoisonError::into_inner);
    assert!((3..60).contains(&n), "{n} calls in a minute");
    timeout(s(1), tasks.close()).await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn resyncs_without_a_set_are_an_error_with_backoff() {
    let resyncs = (0..100_000).map(|_| Answer::Resync);
    let source = Scripted::new([Answer::Ports(vec![1])].into_iter().chain(resyncs));
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    let read_at = Instant::now();
    subscription.snapshots_until(|s| !s.freshness().is_fresh()).await;
    assert!(read_at.elapsed() < s(4), "{:?}", read_at.elapsed());
    assert_eq!(subscription.stats().resyncs, 3);
    sleep(s(600)).await;
    let n_reads = source.asked().len();
    assert!(n_reads < 60, "{n_reads} reads");
    assert!(!subscription.snapshot().freshness().is_fresh());
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_source_is_an_error_and_the_loop_goes_on() {
    let source = Scripted::new([Answer::Ports(vec![1]), Answer::Panic, Answer::Panic]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    let stale = subscription.snapshots_until(|s| !s.freshness().is_fresh()).await;
    assert!(stale.freshness().error().expect("stale").to_string().contains("panicked"));
    subscription.snapshots_until(|s| s.freshness().is_fresh()).await;
}

/// Panics in some calls.
struct Shaky(Arc<Mutex<Vec<usize>>>, usize);

impl Shaky {
    fn call(&mut self, n: usize) {
        self.1 += 1;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(n);
        assert!(![1, 2, 5].contains(&self.1), "a bug of the sink");
    }
}

impl Sink<Instance> for Shaky {
    fn set(&mut self, entries: Entries<Instance>) {
        self.call(entries.items.len());
    }

    fn unchanged(&mut self, _mode: ReadMode) {}

    fn failed(&mut self, _error: Error) {
        self.call(99);
    }

    async fn due(&mut self) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_sink_is_an_error_and_the_loop_goes_on() {
    let source = Scripted::new((1..=9).map(|n| Answer::Ports((0..n).collect())));
    let calls = Arc::<Mutex<Vec<usize>>>::default();
    let (tasks, sink) = (crate::TaskGroup::new(), Shaky(Arc::clone(&calls), 0));
    let (config, nudge) = (FollowConfig::default(), Arc::default());
    tasks.spawn(|stop| follow("test", source, sink, config, nudge, stop));
    sleep(s(1800)).await;
    let calls = calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(calls[..7], [1, 99, 2, 3, 4, 99, 5], "{calls:?}");
    assert!(calls.contains(&9), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn set_of_entries_that_cannot_be_read_now_is_unavailable() {
    struct Unread;
    #[async_trait]
    impl Source for Unread {
        type Item = Instance;
        async fn read(&mut self, _request: ReadRequest) -> Result<ReadResult> {
            let unread = || Err(Error::new(ErrorKind::Unavailable, "test", "get"));
            Ok(ReadResult::set(vec![unread(), unread()]))
        }
    }
    let follower = Follower::new(Unread, publisher(FollowConfig::default()));
    sleep(s(1)).await;
    let snapshot = follower.subscribe().snapshot();
    let error = snapshot.freshness().error().expect("never synced").clone();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

/// Waits by itself for the end of an outage, which it reports once.
struct Session {
    is_back: tokio::sync::watch::Receiver<bool>,
    has_read: bool,
    has_reported: bool,
}

#[async_trait]
impl Source for Session {
    type Item = Instance;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        let ports = |ports: &[u16]| {
            let instances = ports.iter().map(|port| Ok(Instance::new("10.0.0.1", *port)));
            Ok(ReadResult::set(instances.collect()))
        };
        let away = Error::new(ErrorKind::Unavailable, "test", "watch");
        if !std::mem::replace(&mut self.has_read, true) {
            return ports(&[1]);
        }
        match request.mode {
            _ if *self.is_back.borrow() => ports(&[1, 2]),
            ReadMode::Changed if std::mem::replace(&mut self.has_reported, true) => {
                self.is_back.wait_for(|is_back| *is_back).await.expect("the test lives");
                ports(&[1, 2])
            }
            ReadMode::Full => Err(away),
            _ => Ok(ReadResult::trouble(away)),
        }
    }
}

/// Shorter than the periodic resync, and longer; of sources that may be silent for long, and not.
#[tokio::test(start_paused = true)]
async fn end_of_long_trouble_is_seen_within_a_second() {
    let outages = [s(600), s(1200), s(1210), s(1220), s(1230), s(1240)];
    for (outage, silence) in outages.into_iter().flat_map(|it| [(it, s(120)), (it, s(40))]) {
        let (back, is_back) = tokio::sync::watch::channel(false);
        let source = Session { is_back, has_read: false, has_reported: false };
        let config = FollowConfig { max_silence: Some(silence), ..FollowConfig::default() };
        let follower = Follower::new(source, publisher(config));
        let mut subscription = follower.subscribe();
        ready(&mut subscription).await;
        sleep(outage).await;
        assert!(!subscription.snapshot().freshness().is_fresh());
        let back_at = Instant::now();
        back.send_replace(true);
        subscription.snapshots_until(|it| it.instances().len() == 2).await;
        assert!(back_at.elapsed() < s(1), "{:?} after {outage:?}", back_at.elapsed());
    }
}
