mod freshness;
mod pace;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{
    Error, ErrorKind, FollowConfig, Instance, Instancer, Publisher, ReadMode, ReadRequest,
    ReadResult, RegistryConfig, Result, Snapshot, Source, Subscription,
};

/// Answers what the test has scripted; then repeats the last set where it must not wait, and waits
/// without bound where it may. Records its requests and their times.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    asked: Vec<(Instant, ReadRequest)>,
    last: Vec<u16>,
    refresh_in: Option<Duration>,
}

enum Answer {
    Ports(Vec<u16>),
    Polled(Vec<u16>, Duration),
    Mixed(usize, usize),
    /// So many entries, none of which may be read.
    Denied(usize),
    Error(ErrorKind),
    Resync,
    Unchanged,
    Trouble,
    Panic,
    Hang,
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let script = Script { answers: answers.into_iter().collect(), ..Script::default() };
        Self(Arc::new(Mutex::new(script)))
    }

    fn asked(&self) -> Vec<ReadMode> {
        self.with(|script| script.asked.iter().map(|(_, read)| read.mode).collect())
    }

    fn times(&self) -> Vec<Instant> {
        self.with(|script| script.asked.iter().map(|(at, _)| *at).collect())
    }

    fn gaps(&self) -> Vec<Duration> {
        self.with(|script| script.asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect())
    }

    fn with<T>(&self, f: impl FnOnce(&mut Script) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn follow(&self) -> Follower {
        self.follow_with(FollowConfig::default())
    }

    fn follow_with(&self, config: FollowConfig) -> Follower {
        Follower::new(self.clone(), publisher(config))
    }
}

fn publisher(config: FollowConfig) -> Publisher {
    Publisher::new("test", "s", RegistryConfig::default().follow(config))
}

#[async_trait]
impl Source for Scripted {
    type Item = Instance;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        let want = request.mode;
        let answer = self.with(|script| {
            script.asked.push((Instant::now(), request));
            match script.answers.pop_front() {
                None if want != ReadMode::Changed => Some(match script.refresh_in {
                    Some(after) => Answer::Polled(script.last.clone(), after),
                    None => Answer::Ports(script.last.clone()),
                }),
                answer => {
                    if let Some(Answer::Ports(ports) | Answer::Polled(ports, _)) = &answer {
                        script.last.clone_from(ports);
                    }
                    if let Some(Answer::Polled(_, after)) = &answer {
                        script.refresh_in = Some(*after);
                    }
                    answer
                }
            }
        });
        let entries =
            |ports: Vec<u16>| ports.into_iter().map(|p| Ok(Instance::new("10.0.0.1", p))).collect();
        match answer {
            Some(Answer::Ports(ports)) => Ok(ReadResult::set(entries(ports))),
            Some(Answer::Polled(ports, after)) => {
                Ok(ReadResult::set(entries(ports)).refresh_in(after))
            }
            Some(Answer::Mixed(good, bad)) => {
                let good = (1..=good).map(|p| Ok(Instance::new(format!("10.0.0.{p}"), 1)));
                let bad = (0..bad).map(|_| Err(Error::new(ErrorKind::Protocol, "test", "decode")));
                Ok(ReadResult::set(good.chain(bad).collect()))
            }
            Some(Answer::Denied(n)) => {
                let denied = (0..n).map(|_| Err(Error::new(ErrorKind::Denied, "test", "read")));
                Ok(ReadResult::set(denied.collect()))
            }
            Some(Answer::Error(kind)) => Err(Error::new(kind, "test", "follow")),
            Some(Answer::Resync) => Ok(ReadResult::resync("compacted")),
            Some(Answer::Unchanged) => Ok(ReadResult::unchanged()),
            Some(Answer::Trouble) => {
                Ok(ReadResult::trouble(Error::new(ErrorKind::Unavailable, "test", "watch")))
            }
            Some(Answer::Panic) => panic!("a bug of the backend"),
            Some(Answer::Hang) | None => std::future::pending().await,
        }
    }
}

async fn ready(subscription: &mut Subscription) -> Snapshot {
    subscription.ready(Duration::from_secs(3600)).await.expect("an answer")
}

#[tokio::test(start_paused = true)]
async fn full_comes_first_and_changed_after_it() {
    let source = Scripted::new([Answer::Ports(vec![1]), Answer::Ports(vec![1, 2])]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(subscription.snapshot().instances().len(), 2);
    assert_eq!(source.asked(), [ReadMode::Full, ReadMode::Changed, ReadMode::Changed]);
}

#[tokio::test(start_paused = true)]
async fn error_is_followed_by_a_full_read_after_a_pause() {
    let source = Scripted::new([
        Answer::Ports(vec![1]),
        Answer::Error(ErrorKind::Unavailable),
        Answer::Ports(vec![1]),
    ]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    subscription.snapshots_until(|s| !s.freshness().is_fresh()).await;
    subscription.snapshots_until(|s| s.freshness().is_fresh()).await;
    assert_eq!(source.asked()[..3], [ReadMode::Full, ReadMode::Changed, ReadMode::Full]);
}

#[tokio::test(start_paused = true)]
async fn one_malformed_entry_of_ten_is_skipped_and_counted() {
    let source = Scripted::new([Answer::Mixed(9, 1)]);
    let mut subscription = source.follow().subscribe();
    assert_eq!(ready(&mut subscription).await.instances().len(), 9);
    assert_eq!(subscription.stats().malformed, 1);
}

#[tokio::test(start_paused = true)]
async fn malformed_entries_alone_are_an_error_and_keep_the_set() {
    let source = Scripted::new([Answer::Mixed(3, 0), Answer::Mixed(0, 3), Answer::Hang]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    let snapshot = subscription.snapshots_until(|s| !s.freshness().is_fresh()).await;
    assert_eq!(snapshot.instances().len(), 3);
    let error = snapshot.freshness().error().expect("stale");
    assert_eq!(error.to_string(), "test follow: all 3 entries are malformed");
}

#[tokio::test(start_paused = true)]
async fn denied_entries_alone_are_a_denied_read() {
    let source = Scripted::new((0..99).map(|_| Answer::Denied(2)));
    let subscription = source.follow().subscribe();
    sleep(Duration::from_secs(100)).await;
    let snapshot = subscription.snapshot();
    let error = snapshot.freshness().error().expect("no read has succeeded");
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Denied, false), "{error}");
    let gaps = source.gaps();
    assert!(gaps.len() > 2 && gaps.iter().all(|it| *it >= Duration::from_millis(13_500)));
}

#[tokio::test(start_paused = true)]
async fn registry_that_is_down_is_read_ever_more_slowly() {
    let errors = (0..1000).map(|_| Answer::Error(ErrorKind::Unavailable));
    let source = Scripted::new([Answer::Ports(vec![1])].into_iter().chain(errors));
    let follower = source.follow();
    sleep(Duration::from_secs(3600)).await;
    let gaps = source.gaps().split_off(1);
    assert!(gaps.len() > 40, "given up after {}", gaps.len());
    assert!(gaps[0] <= Duration::from_millis(251));
    assert!(gaps.iter().all(|gap| *gap <= Duration::from_millis(60_001)));
    assert!(gaps.iter().skip(10).any(|gap| *gap > Duration::from_secs(20)), "{gaps:?}");
    follower.close().await;
}

#[tokio::test(start_paused = true)]
async fn denied_reader_reads_at_most_every_13_seconds() {
    let source = Scripted::new((0..9).map(|_| Answer::Error(ErrorKind::Denied)));
    let _follower = source.follow();
    sleep(Duration::from_secs(300)).await;
    assert!(source.gaps()[..8].iter().all(|gap| *gap >= Duration::from_millis(13_500)));
}

#[tokio::test(start_paused = true)]
async fn source_that_returns_without_pause_is_limited() {
    let source = Scripted::new((1..=100).map(|n| Answer::Ports((1..=n).collect())));
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    sleep(Duration::from_secs(1)).await;
    let reads = source.asked().len();
    assert!((10..=13).contains(&reads), "{reads} reads in a second");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(subscription.snapshot().instances().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn lost_position_is_no_error() {
    let source = Scripted::new([Answer::Ports(vec![1]), Answer::Resync, Answer::Ports(vec![2])]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    let second =
        subscription.snapshots_until(|s| s.instances().iter().any(|i| i.port() == 2)).await;
    assert!(second.freshness().is_fresh());
    assert_eq!(source.asked()[..3], [ReadMode::Full, ReadMode::Changed, ReadMode::Full]);
    assert_eq!((subscription.stats().errors, subscription.stats().resyncs), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn everything_is_read_anew_from_time_to_time() {
    let source = Scripted::new([Answer::Ports(vec![1]), Answer::Hang, Answer::Ports(vec![1, 2])]);
    let subscription = source.follow().subscribe();
    sleep(Duration::from_secs(17 * 60)).await;
    let asked = source.asked();
    assert_eq!(asked[..3], [ReadMode::Full, ReadMode::Changed, ReadMode::Verify]);
    assert_eq!(asked.iter().filter(|mode| **mode == ReadMode::Full).count(), 2, "every 15 min");
    assert_eq!(subscription.snapshot().instances().len(), 2);
    assert!(subscription.snapshot().freshness().is_fresh());
}

#[tokio::test(start_paused = true)]
async fn full_read_that_hangs_is_an_error_after_its_bound() {
    let source = Scripted::new([Answer::Hang, Answer::Ports(vec![1])]);
    let mut subscription = source.follow().subscribe();
    let early = subscription.ready(Duration::from_secs(29)).await.expect_err("hangs");
    assert_eq!(early.kind(), ErrorKind::Timeout);
    assert_eq!(ready(&mut subscription).await.instances().len(), 1);
    assert_eq!(subscription.stats().errors, 1);
}

#[tokio::test(start_paused = true)]
async fn loss_is_confirmed_by_the_strongest_read() {
    let source = Scripted::new([Answer::Ports(vec![1, 2, 3]), Answer::Ports(vec![])]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    subscription.snapshots_until(|s| s.held().len() == 3).await;
    sleep(Duration::from_secs(62)).await;
    assert_eq!(source.asked()[2..], [ReadMode::Changed, ReadMode::Confirm, ReadMode::Changed]);
    assert_eq!(subscription.snapshot().held().len(), 3);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(source.asked()[5..], [ReadMode::Confirm, ReadMode::Changed]);
    let snapshot = subscription.snapshot();
    assert!(snapshot.held().is_empty() && snapshot.instances().is_empty());
}

#[tokio::test(start_paused = true)]
async fn polled_source_is_read_at_its_own_pace_within_the_bounds() {
    let hour = Duration::from_secs(3600);
    let source = Scripted::new([
        Answer::Polled(vec![1], Duration::from_secs(20)),
        Answer::Polled(vec![1], Duration::ZERO),
        Answer::Polled(vec![1], hour),
        Answer::Polled(vec![1], hour),
    ]);
    let _follower = source.follow();
    sleep(Duration::from_secs(400)).await;
    let gaps = source.gaps();
    let near = |gap: Duration, s: u64| {
        (gap.as_secs_f64() / Duration::from_secs(s).as_secs_f64() - 1.0).abs() <= 0.11
    };
    assert!(near(gaps[0], 20) && near(gaps[1], 5) && near(gaps[2], 300), "{gaps:?}");
    assert!(source.asked().iter().all(|read| *read == ReadMode::Full));
}

#[tokio::test(start_paused = true)]
async fn refresh_cuts_the_wait_of_a_polled_source_but_no_backoff() {
    let long = Duration::from_secs(250);
    let source = Scripted::new([
        Answer::Polled(vec![1], long),
        Answer::Polled(vec![2], long),
        Answer::Error(ErrorKind::Denied),
        Answer::Polled(vec![3], long),
    ]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    subscription.refresh();
    subscription.snapshots_until(|s| s.instances().iter().any(|i| i.port() == 2)).await;
    for _ in 0..100 {
        subscription.refresh();
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(source.asked().len(), 3, "one error, and the pause after it is kept");
}

/// All clients of a failing registry would read it together.
#[tokio::test(start_paused = true)]
async fn refresh_cuts_no_pause_after_a_failure() {
    let errors = || (0..1000).map(|_| Answer::Error(ErrorKind::Unavailable));
    let n_reads = |is_nudged| async move {
        let source = Scripted::new([Answer::Ports(vec![1])].into_iter().chain(errors()));
        let config = FollowConfig { seed: Some(7), ..FollowConfig::default() };
        let subscription = source.follow_with(config).subscribe();
        for _ in 0..600 {
            if is_nudged {
                subscription.refresh();
            }
            sleep(Duration::from_secs(1)).await;
        }
        source.asked().len()
    };
    assert_eq!(n_reads(true).await, n_reads(false).await);
}

#[tokio::test(start_paused = true)]
async fn flood_of_refreshes_is_obeyed_ever_more_rarely() {
    let source = Scripted::new([Answer::Ports(vec![1])]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    for _ in 0..1000 {
        subscription.refresh();
        sleep(Duration::from_millis(10)).await;
    }
    let verified = source.asked().iter().filter(|mode| **mode == ReadMode::Verify).count();
    assert!((2..=5).contains(&verified), "{verified} reads in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn close_ends_a_long_wait_and_drops_the_source() {
    let source = Scripted::new([Answer::Ports(vec![1])]);
    let follower = source.follow();
    let mut subscription = follower.subscribe();
    ready(&mut subscription).await;
    assert_eq!(Arc::strong_count(&source.0), 2);
    let start = Instant::now();
    follower.close().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(Arc::strong_count(&source.0), 1);
    let snapshot = subscription.snapshot();
    assert_eq!(snapshot.instances().len(), 1);
    assert!(!snapshot.freshness().is_fresh(), "never silently stale");
}

#[tokio::test(start_paused = true)]
async fn loop_lives_while_the_instancer_or_any_subscription_lives() {
    let source = Scripted::new([Answer::Ports(vec![1])]);
    let follower = source.follow();
    let (first, second) = (follower.subscribe(), follower.subscribe());
    drop(follower);
    drop(first);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(Arc::strong_count(&source.0), 2);
    drop(second);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(Arc::strong_count(&source.0), 1);
}

#[tokio::test(start_paused = true)]
async fn stream_starts_with_the_latest_and_ends_with_the_loop() {
    let source = Scripted::new([Answer::Ports(vec![1])]);
    let follower = source.follow();
    let mut subscription = follower.subscribe();
    ready(&mut subscription).await;
    let mut stream = Box::pin(subscription.into_stream());
    assert_eq!(stream.next().await.expect("the latest").instances().len(), 1);
    follower.close().await;
    assert!(!stream.next().await.expect("the last word").freshness().is_fresh());
    assert!(stream.next().await.is_none());
}

impl Subscription {
    async fn snapshots_until(&mut self, wanted: impl Fn(&Snapshot) -> bool + Sync) -> Snapshot {
        let found = async {
            while !wanted(&self.snapshot()) {
                self.changed().await.expect("open");
            }
            self.snapshot()
        };
        timeout(Duration::from_secs(3600), found).await.expect("such a snapshot")
    }
}
