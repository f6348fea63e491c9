//! The following loop: asks a source for ever, and feeds a sink.

mod config;
mod follower;
mod rate_limit;
#[cfg(test)]
mod tests;

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{
    select,
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use self::rate_limit::RateLimit;
pub use self::{config::FollowConfig, follower::Follower};
use crate::{Backoff, Error, ErrorKind, Read, Reading, Result, Source, Stop};

/// What the following loop feeds: a [`Publisher`](crate::Publisher) for instances.
pub trait Sink<T>: Send + 'static {
    /// The complete set has been read.
    fn set(&mut self, entries: Vec<T>);

    /// A read has failed: nothing was learned.
    fn failed(&mut self, error: Error);

    /// The entries of the last read that could not be understood, none if all could; called before [`set`](Self::set).
    fn malformed(&mut self, errors: &[Error]);

    /// Everything is about to be read anew, without a failure.
    fn resync(&mut self, reason: &'static str) {
        let _ = reason;
    }

    /// Applies what is due by time, and resolves when a confirming read is wanted.
    ///
    /// # Cancel safety
    ///
    /// Has to be cancel safe: the loop drops it and asks again.
    fn due(&mut self) -> impl Future<Output = ()> + Send;
}

/// Follows `source` until `stop`: backoff, rate limit, resync, bounds and the skipping of malformed entries are here.
///
/// `nudge` asks for a new read, at most one a second. Most callers want a [`Follower`].
pub async fn follow<S: Source>(
    source: S,
    sink: impl Sink<S::Item>,
    config: FollowConfig,
    nudge: Arc<Notify>,
    stop: Stop,
) {
    let mut following = Following::new(source, sink, config);
    select! {
        biased;
        () = stop.requested() => {}
        () = following.run(&nudge) => {}
    }
}

struct Following<S, K> {
    source: S,
    sink: K,
    config: FollowConfig,
    backoff: Backoff,
    rate_limit: RateLimit,
    rng: Rng,
    want: Read,
    /// The earliest time of the next read.
    not_before: Instant,
    /// When everything is read anew although nothing has happened.
    resync_at: Instant,
    /// The last read failed: only time, not a nudge, brings the next one.
    failed: bool,
    /// The earliest time at which a nudge is obeyed.
    nudge_after: Instant,
}

/// How one round ended.
enum Outcome<T> {
    Read(Result<Reading<T>>),
    TimedOut,
    Confirm,
    Nudged,
}

impl<S: Source, K: Sink<S::Item>> Following<S, K> {
    fn new(source: S, sink: K, config: FollowConfig) -> Self {
        let now = Instant::now();
        let mut rng = config.seed.map_or_else(Rng::new, Rng::with_seed);
        Self {
            backoff: Backoff::new(config.backoff_initial, config.backoff_cap)
                .with_seed(rng.u64(..)),
            rate_limit: RateLimit::new(config.min_interval),
            resync_at: now + jittered(config.resync, &mut rng),
            source,
            sink,
            config,
            rng,
            want: Read::Full,
            not_before: now,
            failed: false,
            nudge_after: now,
        }
    }

    async fn run(&mut self, nudge: &Notify) {
        loop {
            match self.round(nudge).await {
                Outcome::Read(Ok(Reading::Set { entries, refresh_in })) => {
                    self.take(entries, refresh_in);
                }
                Outcome::Read(Ok(Reading::Resync(reason))) => self.resync(reason),
                Outcome::Read(Err(error)) => self.fail(error),
                Outcome::TimedOut if self.want == Read::Changed => self.resync("periodic"),
                Outcome::TimedOut => {
                    let message = format!("no answer within {:?}", self.config.read_timeout);
                    self.fail(self.error(ErrorKind::Timeout).with_message(message));
                }
                Outcome::Confirm => self.want = Read::Confirm,
                Outcome::Nudged => {
                    self.want = Read::Full;
                    self.not_before = Instant::now();
                    self.nudge_after = self.not_before + MIN_REFRESH;
                }
            }
        }
    }

    /// One read, unless the sink or a nudge wants another one first. Dropping the read's future ends its I/O.
    async fn round(&mut self, nudge: &Notify) -> Outcome<S::Item> {
        let (want, not_before, failed) = (self.want, self.not_before, self.failed);
        let bound = match want {
            Read::Changed => self.resync_at.max(not_before),
            Read::Full | Read::Confirm => not_before.max(Instant::now()) + self.config.read_timeout,
        };
        let Self { source, sink, nudge_after, .. } = self;
        let nudge_after = *nudge_after;
        let mut read = pin!(async {
            sleep_until(not_before).await;
            timeout_at(bound, source.read(want)).await
        });
        let waits = want == Read::Changed || not_before > Instant::now();
        let mut nudged = pin!(async {
            nudge.notified().await;
            sleep_until(nudge_after).await;
        });
        loop {
            select! {
                biased;
                read = &mut read => return match read {
                    Ok(reading) => Outcome::Read(reading),
                    Err(_elapsed) => Outcome::TimedOut,
                },
                () = sink.due() => if want != Read::Confirm {
                    return Outcome::Confirm;
                },
                () = &mut nudged, if waits && !failed => return Outcome::Nudged,
            }
        }
    }

    fn take(&mut self, entries: Vec<Result<S::Item>>, refresh_in: Option<Duration>) {
        let n_entries = entries.len();
        let (mut good, mut malformed) = (Vec::with_capacity(n_entries), Vec::new());
        for entry in entries {
            match entry {
                Ok(entry) => good.push(entry),
                Err(error) => malformed.push(error),
            }
        }
        self.sink.malformed(&malformed);
        if let Some(error) = malformed.pop()
            && good.is_empty()
        {
            let message = format!("all {n_entries} entries are malformed");
            let error = self.error(ErrorKind::Protocol).with_message(message).with_source(error);
            return self.fail(error);
        }
        self.sink.set(good);
        self.failed = false;
        let now = Instant::now();
        if self.want != Read::Changed {
            self.resync_at = now + jittered(self.config.resync, &mut self.rng);
        }
        let limited = self.rate_limit.next(now);
        (self.want, self.not_before) = match refresh_in {
            None => (Read::Changed, limited),
            Some(wanted) => {
                let clamped = wanted.clamp(self.config.min_refresh, self.config.max_refresh);
                let pause = jittered(clamped, &mut self.rng).max(self.config.min_refresh);
                (Read::Full, limited.max(now + pause))
            }
        };
    }

    fn resync(&mut self, reason: &'static str) {
        self.sink.resync(reason);
        self.want = Read::Full;
        self.not_before = self.rate_limit.next(Instant::now());
    }

    fn fail(&mut self, error: Error) {
        let mut pause = self.backoff.next_pause();
        if !error.is_transient() {
            // Somebody has to change a token or a setting first.
            pause = pause.max(jittered(self.config.denied_interval, &mut self.rng));
        }
        tracing::debug!(backend = self.config.backend, error = %error.chain(), ?pause, "read failed");
        self.sink.failed(error);
        self.failed = true;
        self.want = Read::Full;
        self.not_before = Instant::now() + pause;
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.config.backend, "follow")
    }
}

/// Within 10 % of `duration`, so that clients that were started together do not ask together.
fn jittered(duration: Duration, rng: &mut Rng) -> Duration {
    duration.mul_f64(0.9 + 0.2 * rng.f64())
}

/// Nudges come from failing endpoints, which fail together.
const MIN_REFRESH: Duration = Duration::from_secs(1);
