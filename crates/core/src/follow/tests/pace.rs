//! How often a source is read.

use super::*;

fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn share(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64()
}

/// A service whose only instance refuses connections: each request of each client nudges.
#[tokio::test(start_paused = true)]
async fn nudges_of_a_dead_instance_cost_at_most_a_read_in_5_s() {
    let sources: Vec<_> = (0..100).map(|_| Scripted::new([Answer::Ports(vec![1])])).collect();
    let followers: Vec<_> = sources.iter().map(Scripted::follow).collect();
    let mut subscriptions: Vec<_> = followers.iter().map(Instancer::subscribe).collect();
    for subscription in &mut subscriptions {
        ready(subscription).await;
    }
    let start = Instant::now();
    while start.elapsed() < s(300) {
        subscriptions.iter().for_each(Subscription::refresh);
        sleep(Duration::from_millis(100)).await;
    }
    let suspected = |source: &Scripted| {
        let reads = source.asked().into_iter().zip(source.times());
        reads
            .filter(|(mode, _)| *mode == ReadMode::Verify)
            .map(|(_, at)| at - start)
            .collect::<Vec<_>>()
    };
    let all: Vec<Vec<Duration>> = sources.iter().map(suspected).collect();
    for reads in &all {
        let late = reads.iter().filter(|at| **at >= s(60)).count();
        assert!(late <= 48, "{late} reads in four minutes");
        assert!(late >= 10, "never ignored: {late}");
    }
    let firsts: Vec<_> = all.iter().map(|reads| reads[0]).collect();
    let (first, last) = (firsts.iter().min(), firsts.iter().max());
    let spread = *last.expect("some") - *first.expect("some");
    assert!(spread > Duration::from_millis(700), "together: {spread:?}");
}

#[tokio::test(start_paused = true)]
async fn lone_nudge_is_obeyed_within_a_second_and_so_is_a_later_one() {
    let source = Scripted::new([Answer::Ports(vec![1])]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    for n in 1..=3 {
        subscription.refresh();
        sleep(Duration::from_millis(1010)).await;
        let reads = source.asked();
        assert_eq!(reads.iter().filter(|mode| **mode == ReadMode::Verify).count(), n);
        sleep(s(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn flood_of_nudges_costs_nothing_after_a_calm_time() {
    let source = Scripted::new([Answer::Ports(vec![1])]);
    let mut subscription = source.follow().subscribe();
    ready(&mut subscription).await;
    for _ in 0..600 {
        subscription.refresh();
        sleep(Duration::from_millis(100)).await;
    }
    sleep(s(60)).await;
    let before = source.asked().len();
    for _ in 0..50 {
        subscription.refresh();
        sleep(Duration::from_millis(100)).await;
    }
    let n_verified = source.asked()[before..].iter().filter(|m| **m == ReadMode::Verify).count();
    assert!((2..=4).contains(&n_verified), "{n_verified} reads in 5 s");
}

/// It would never end if each request of a failing client began it anew.
#[tokio::test(start_paused = true)]
async fn nudge_cuts_no_read_that_runs() {
    /// Reads for 5 s.
    struct Slow(Scripted);
    #[async_trait]
    impl Source for Slow {
        type Item = Instance;
        async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
            self.0.with(|script| script.asked.push((Instant::now(), request)));
            match request.waits() {
                true => std::future::pending().await,
                false => sleep(s(5)).await,
            }
            Ok(ReadResult::set(vec![Ok(Instance::new("10.0.0.1", 1))]))
        }
    }
    let source = Scripted::new([]);
    let follower = Follower::new(Slow(source.clone()), publisher(FollowConfig::default()));
    let mut subscription = follower.subscribe();
    let start = Instant::now();
    subscription.refresh();
    ready(&mut subscription).await;
    assert_eq!(start.elapsed(), s(5));
    sleep(s(60)).await;
    subscription.refresh();
    sleep(s(2)).await;
    subscription.refresh();
    sleep(s(3)).await;
    let asked = source.asked();
    let count = |wanted| asked.iter().filter(|mode| **mode == wanted).count();
    assert_eq!((count(ReadMode::Full), count(ReadMode::Verify)), (1, 2), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn first_answer_is_awaited_every_5_s_and_sooner_on_demand() {
    let errors = || (0..1000).map(|_| Answer::Error(ErrorKind::Unavailable));
    let source = Scripted::new(errors());
    let subscription = source.follow().subscribe();
    sleep(s(600)).await;
    let gaps = source.gaps();
    assert!(gaps.iter().all(|gap| *gap <= Duration::from_millis(5001)), "{gaps:?}");
    assert!(gaps.len() < 400, "{} reads", gaps.len());
    drop(subscription);

    let config = FollowConfig { first_max_backoff: s(60), ..FollowConfig::default() };
    let source = Scripted::new(errors());
    let subscription = source.follow_with(config.clone()).subscribe();
    sleep(s(600)).await;
    let before = source.asked().len();
    sleep(s(40)).await;
    let calm = source.asked().len() - before;
    subscription.refresh();
    sleep(Duration::from_millis(1010)).await;
    assert!(source.asked().len() > before + calm, "a nudge before the first answer");

    let source = Scripted::new((0..1000).map(|_| Answer::Error(ErrorKind::Denied)));
    let subscription = source.follow_with(config).subscribe();
    for _ in 0..600 {
        subscription.refresh();
        sleep(s(1)).await;
    }
    assert!(source.gaps().iter().all(|gap| *gap >= s(15)));
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_the_registry_is_obeyed_within_limits() {
    struct Busy(Arc<Mutex<Vec<Instant>>>, Duration);
    #[async_trait]
    impl Source for Busy {
        type Item = Instance;
        async fn read(&mut self, _request: ReadRequest) -> Result<ReadResult> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            Err(Error::new(ErrorKind::Unavailable, "test", "read").with_retry_after(self.1))
        }
    }
    for (wanted, least, most) in [(20, 20, 24), (1_000_000, 300, 360)] {
        let reads = Arc::<Mutex<Vec<Instant>>>::default();
        let source = Busy(Arc::clone(&reads), s(wanted));
        let _follower = Follower::new(source, publisher(FollowConfig::default()));
        sleep(s(1000)).await;
        let reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
        let gaps: Vec<_> = reads.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let within = s(least)..=s(most) + Duration::from_millis(1);
        assert!(gaps.len() > 1 && gaps.iter().all(|gap| within.contains(gap)), "{gaps:?}");
    }
}

/// A proxy in front of the registry, with the 50 s of HAProxy's sample configuration.
#[tokio::test(start_paused = true)]
async fn proxy_that_cuts_every_wait_blinds_for_less_than_5_percent() {
    struct Cut(Arc<Mutex<(Duration, Option<Instant>)>>);
    #[async_trait]
    impl Source for Cut {
        type Item = Instance;
        async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
            if request.waits() {
                sleep(s(50)).await;
                self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(Instant::now());
                return Err(Error::new(ErrorKind::Unavailable, "test", "watch"));
            }
            let mut blind = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let cut_at = blind.1.take();
            blind.0 += cut_at.map_or(Duration::ZERO, |at| at.elapsed());
            Ok(ReadResult::set(vec![Ok(Instance::new("10.0.0.1", 1))]))
        }
    }
    let blind = Arc::<Mutex<(Duration, Option<Instant>)>>::default();
    let follow = FollowConfig { seed: Some(3), ..FollowConfig::default() };
    let _follower = Follower::new(Cut(Arc::clone(&blind)), publisher(follow));
    sleep(s(3600 * 5)).await;
    let share = share(blind.lock().unwrap_or_else(PoisonError::into_inner).0, s(3600 * 5));
    assert!(share < 0.05, "{share}");
}

#[tokio::test(start_paused = true)]
async fn resyncs_of_many_followers_are_spread() {
    let resync = || Scripted::new([Answer::Ports(vec![1]), Answer::Resync]);
    let sources: Vec<_> = (0..100).map(|_| resync()).collect();
    let _followers: Vec<_> = sources.iter().map(Scripted::follow).collect();
    let start = Instant::now();
    sleep(s(5)).await;
    let mut reads: Vec<_> = sources.iter().map(|source| source.times()[2] - start).collect();
    reads.sort();
    assert!(reads[90] - reads[10] > Duration::from_millis(500), "{reads:?}");
    assert!(reads[99] <= Duration::from_millis(1100), "{reads:?}");
}

/// Of a registry that was wiped: all lose all in one moment.
#[tokio::test(start_paused = true)]
async fn confirming_reads_of_many_followers_are_spread() {
    let lost = || Scripted::new([Answer::Ports(vec![1]), Answer::Ports(vec![])]);
    let sources: Vec<_> = (0..100).map(|_| lost()).collect();
    let _followers: Vec<_> = sources.iter().map(Scripted::follow).collect();
    sleep(s(100)).await;
    let confirmed = |source: &Scripted| {
        let at = source.asked().iter().position(|mode| *mode == ReadMode::Confirm);
        source.times()[at.expect("half-way")]
    };
    let mut reads: Vec<_> = sources.iter().map(confirmed).collect();
    reads.sort();
    assert!(reads[90] - reads[10] > Duration::from_millis(500), "{reads:?}");
}

#[tokio::test(start_paused = true)]
async fn proofs_of_life_without_pause_are_limited() {
    let source = Scripted::new(
        [Answer::Ports(vec![1])].into_iter().chain((0..100_000).map(|_| Answer::Unchanged)),
    );
    let _follower = source.follow();
    sleep(s(600)).await;
    let n_reads = source.asked().len();
    assert!((100..600).contains(&n_reads), "{n_reads} reads");
}

/// A long poll whose every wait ends with a proof of life.
#[tokio::test(start_paused = true)]
async fn proof_of_life_that_was_waited_for_costs_no_pause() {
    struct LongPoll(Scripted, Duration);
    #[async_trait]
    impl Source for LongPoll {
        type Item = Instance;
        async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
            self.0.with(|script| script.asked.push((Instant::now(), request)));
            if !request.waits() {
                return Ok(ReadResult::set(vec![Ok(Instance::new("10.0.0.1", 1))]));
            }
            sleep(self.1).await;
            Ok(ReadResult::unchanged())
        }
    }
    for wait in [s(1), s(20)] {
        let source = Scripted::new([]);
        let long_poll = LongPoll(source.clone(), wait);
        let _follower = Follower::new(long_poll, publisher(FollowConfig::default()));
        sleep(s(601)).await;
        let gaps = source.gaps();
        assert!(gaps.len() >= 30 && gaps[1..].iter().all(|gap| *gap == wait), "{gaps:?}");
    }
}

/// A server whose history is always too short for the position that it has just given.
#[tokio::test(start_paused = true)]
async fn resyncs_with_a_set_between_them_are_limited() {
    let answers = (0..100_000).flat_map(|_| [Answer::Ports(vec![1]), Answer::Resync]);
    let source = Scripted::new(answers);
    let follower = source.follow();
    sleep(s(600)).await;
    let n_reads = source.asked().len();
    assert!((100..800).contains(&n_reads), "{n_reads} reads");
    assert!(follower.subscribe().snapshot().freshness().is_fresh());
}

#[tokio::test(start_paused = true)]
async fn no_setting_of_a_duration_ends_the_loop() {
    let (least, most) = (Duration::ZERO, Duration::MAX);
    for (a, b) in [(least, most), (most, least), (least, least), (most, most)] {
        let mut config = FollowConfig::default();
        (config.initial_backoff, config.max_backoff, config.first_max_backoff) = (a, b, b);
        (config.min_refresh, config.max_refresh, config.min_interval) = (a, b, least);
        (config.denied_interval, config.read_timeout) = (a, most);
        (config.resync, config.max_silence) = (Some(a), Some(b));
        let hour = s(3600);
        let source = Scripted::new([Answer::Polled(vec![1], most), Answer::Polled(vec![1], hour)]);
        let follower = source.follow_with(config);
        assert!(ready(&mut follower.subscribe()).await.freshness().is_fresh());
        sleep(s(1)).await;
        assert!(follower.subscribe().snapshot().freshness().is_fresh(), "{a:?} {b:?}");
    }
    let mut config = FollowConfig::default();
    (config.resync, config.max_silence) = (None, None);
    let source = Scripted::new([Answer::Ports(vec![1])]);
    let follower = source.follow_with(config);
    sleep(s(10 * 24 * 3600)).await;
    assert_eq!(source.asked().len(), 2, "never");
    assert!(follower.subscribe().snapshot().freshness().is_fresh());
}

#[tokio::test(start_paused = true)]
async fn periodic_resync_is_no_trouble_and_no_change_puts_it_off() {
    let (resync, max_silence) = (Some(s(100)), None);
    let config = FollowConfig { resync, max_silence, ..FollowConfig::default() };
    let source = Scripted::new([Answer::Ports(vec![1])]);
    let mut subscription = source.follow_with(config.clone()).subscribe();
    ready(&mut subscription).await;
    sleep(s(1050)).await;
    let periodic =
        |source: &Scripted| source.asked().iter().filter(|m| **m == ReadMode::Full).count() - 1;
    let n_periodic = periodic(&source);
    assert!((9..=11).contains(&n_periodic), "{n_periodic}");
    let stats = subscription.stats();
    assert_eq!((stats.errors, stats.resyncs), (0, u64::try_from(n_periodic).expect("few")));

    /// Changes every 7 s.
    struct Busy(Scripted);
    #[async_trait]
    impl Source for Busy {
        type Item = Instance;
        async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
            self.0.with(|script| script.asked.push((Instant::now(), request)));
            if request.waits() {
                sleep(s(7)).await;
            }
            Ok(ReadResult::set(vec![Ok(Instance::new("10.0.0.1", 1))]))
        }
    }
    let source = Scripted::new([]);
    let _follower = Follower::new(Busy(source.clone()), publisher(config));
    sleep(s(1050)).await;
    let n_periodic = periodic(&source);
    assert!((9..=11).contains(&n_periodic), "{n_periodic}");
}

/// The bound on entries reaches the source.
#[tokio::test(start_paused = true)]
async fn request_has_the_bound_of_the_publisher() {
    let source = Scripted::new([Answer::Ports(vec![1])]);
    let publisher = Publisher::new("test", "s", RegistryConfig::default().max_instances(7));
    let follower = Follower::new(source.clone(), publisher);
    ready(&mut follower.subscribe()).await;
    assert!(source.with(|script| script.asked.iter().all(|(_, read)| read.max_entries == 7)));
}
