use std::{pin::pin, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{
    select,
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use super::{nudges::Nudges, rate_limit::RateLimit};
use crate::{
    Backoff, Entries, Error, ErrorKind, FollowConfig, ReadMode, ReadRequest, ReadResult, Result,
    Shutdown, Sink, Source,
    panics::{contained, contained_now},
    source::Outcome,
};

/// Follows `source` until `stop`, and feeds `sink`.
///
/// Backoff, rate limits, resync, time-outs, freshness and the separation of malformed entries are
/// here. `backend` is the name in logs and errors. `nudge` requests a verification of the view;
/// such reads are jittered, and rarer the longer the requests go on. Most callers need a
/// [`Follower`](super::Follower).
pub async fn follow<S: Source>(
    backend: &'static str,
    source: S,
    sink: impl Sink<S::Item>,
    config: FollowConfig,
    nudge: Arc<Notify>,
    stop: Shutdown,
) {
    let config = config.clamped();
    let mut rng = config.seed.map_or_else(Rng::new, Rng::with_seed);
    let mut worker = Worker {
        backoff: backoff(&config, config.first_max_backoff, &mut rng),
        calm: backoff(&config, MAX_CALM, &mut rng),
        rate_limit: RateLimit::new(config.min_interval),
        nudges: Nudges::new(nudge),
        mode: ReadMode::Full,
        confirm: false,
        not_before: Instant::now(),
        resync_at: None,
        verify_at: None,
        stale_at: None,
        may_nudge: true,
        synced: false,
        n_resyncs: 0,
        backend,
        source,
        sink,
        config,
        rng,
    };
    select! {
        biased;
        () = stop.requested() => {}
        () = worker.run() => {}
    }
}

struct Worker<S, K> {
    backend: &'static str,
    source: S,
    sink: K,
    config: FollowConfig,
    backoff: Backoff,
    /// Paces proofs of life, and resyncs, that come without pause.
    calm: Backoff,
    rate_limit: RateLimit,
    nudges: Nudges,
    rng: Rng,
    mode: ReadMode,
    /// Every read is a confirming one until one has succeeded.
    confirm: bool,
    /// The earliest time of the next read.
    not_before: Instant,
    /// The time of the periodic resync.
    resync_at: Option<Instant>,
    /// The time of the verification of a silent source.
    verify_at: Option<Instant>,
    /// The time at which a silent source is stale.
    stale_at: Option<Instant>,
    /// Whether a nudge or a confirming read may cut the present pause: not after an error.
    may_nudge: bool,
    synced: bool,
    /// Resyncs in a row without a set or a proof of life.
    n_resyncs: u32,
}

/// The end of one turn.
enum Event<T> {
    Read(Result<ReadResult<T>>),
    TimedOut,
    Confirm,
    Nudged,
}

impl<S: Source, K: Sink<S::Item>> Worker<S, K> {
    async fn run(&mut self) {
        loop {
            if contained(|| self.turn()).await.is_none() {
                tracing::error!(backend = self.backend, "read panicked; retrying with backoff");
                let error = self.error(ErrorKind::Protocol).with_message("the read panicked");
                // The next read is planned before the sink is called, which may panic again.
                contained_now(|| self.fail(error));
                // The sink may panic before the next read waits for its time.
                sleep_until(self.not_before).await;
            }
        }
    }

    async fn turn(&mut self) {
        let asked_at = Instant::now().max(self.not_before);
        match self.event().await {
            Event::Read(Ok(result)) => self.take(result, asked_at),
            Event::Read(Err(error)) => self.fail(error),
            Event::TimedOut if self.mode() != ReadMode::Changed => {
                let message = format!("no answer within {:?}", self.config.read_timeout);
                self.fail(self.error(ErrorKind::Timeout).with_message(message));
            }
            Event::TimedOut if !is_due(self.verify_at) && is_due(self.resync_at) => {
                self.sink.resync("periodic");
                self.next(ReadMode::Full, Duration::ZERO);
            }
            Event::TimedOut | Event::Nudged => {
                let mode = if self.synced { ReadMode::Verify } else { ReadMode::Full };
                self.next(mode, Duration::ZERO);
            }
            Event::Confirm => {
                self.confirm = true;
                if self.may_nudge {
                    self.not_before = Instant::now() + HASTY.mul_f64(self.rng.f64());
                }
            }
        }
    }

    /// One read, unless the sink or a nudge requires another one first. Dropping the read's future
    /// ends its I/O.
    async fn event(&mut self) -> Event<S::Item> {
        let (mode, not_before, now) = (self.mode(), self.not_before, Instant::now());
        let bound = match mode {
            ReadMode::Changed => {
                let at = self.resync_at.into_iter().chain(self.verify_at).min();
                at.map(|at| at.max(not_before))
            }
            _ => {
                let begins = not_before.max(now);
                let bound = begins + self.config.read_timeout;
                // What is stale already gains nothing by a shorter bound.
                let is_bound = |at: &Instant| mode == ReadMode::Verify && *at > begins;
                Some(self.stale_at.filter(is_bound).map_or(bound, |at| at.min(bound)))
            }
        };
        let max_entries = self.sink.max_entries();
        let request = ReadRequest { mode, max_entries };
        let waits = mode == ReadMode::Changed || not_before > now;
        let may_nudge = self.may_nudge && waits && mode != ReadMode::Confirm;
        let Self { source, sink, nudges, rng, .. } = self;
        let mut read = pin!(async {
            sleep_until(not_before).await;
            match bound {
                Some(at) => timeout_at(at, source.read(request)).await.ok(),
                None => Some(source.read(request).await),
            }
        });
        let mut nudged = pin!(nudges.due(rng));
        loop {
            select! {
                biased;
                read = &mut read => return read.map_or(Event::TimedOut, Event::Read),
                () = sink.due() => if mode != ReadMode::Confirm {
                    return Event::Confirm;
                },
                () = &mut nudged, if may_nudge => return Event::Nudged,
            }
        }
    }

    fn take(&mut self, result: ReadResult<S::Item>, asked_at: Instant) {
        let ReadResult { outcome, refresh_in, accepts_absences } = result;
        match outcome {
            Outcome::Set(entries) => self.set(entries, refresh_in, accepts_absences),
            Outcome::Unchanged if !self.synced => {
                let error = self.error(ErrorKind::Protocol);
                self.fail(error.with_message("the source has not read a set yet"));
            }
            Outcome::Unchanged => {
                self.sink.unchanged(self.mode());
                let hasty = asked_at.elapsed() < HASTY && self.mode() == ReadMode::Changed;
                let pause = if hasty { self.calm.next_pause() } else { Duration::ZERO };
                self.succeeded(refresh_in);
                self.not_before = self.not_before.max(Instant::now() + pause);
            }
            Outcome::Trouble(error) => {
                self.fail(error);
                self.mode = ReadMode::Changed;
                self.leave_alone();
            }
            Outcome::Resync(reason) if self.n_resyncs < MAX_RESYNCS => {
                self.n_resyncs += 1;
                self.sink.resync(reason);
                // A position that each set gives may be lost each time.
                let pause = HASTY.mul_f64(self.rng.f64()).max(self.calm.next_pause());
                self.next(ReadMode::Full, pause);
            }
            Outcome::Resync(reason) => {
                let message = format!("no set after {MAX_RESYNCS} resyncs: {reason}");
                self.fail(self.error(ErrorKind::Unavailable).with_message(message));
            }
        }
    }

    fn set(
        &mut self,
        entries: Vec<Result<S::Item>>,
        refresh_in: Option<Duration>,
        accepts_absences: bool,
    ) {
        let n_entries = entries.len();
        let (mut items, mut errors) = (Vec::with_capacity(n_entries), Vec::new());
        for entry in entries {
            match entry {
                Ok(item) => items.push(item),
                Err(error) => errors.push(error),
            }
        }
        if items.is_empty()
            && let Some(error) = errors.last()
        {
            let is_denied = error.kind() == ErrorKind::Denied;
            let what = if is_denied { "denied" } else { "malformed" };
            let message = format!("all {n_entries} entries are {what}");
            let is_kept = is_denied || error.is_transient();
            let kind = if is_kept { error.kind() } else { ErrorKind::Protocol };
            let error = self.error(kind).with_message(message).with_source(error.clone());
            return self.fail(error);
        }
        let mode = self.mode();
        self.sink.set(Entries { items, errors, mode, accepts_absences });
        self.succeeded(refresh_in);
    }

    /// Plans the read after a set or a proof of life.
    fn succeeded(&mut self, refresh_in: Option<Duration>) {
        let now = Instant::now();
        let mode = self.mode();
        if !self.synced {
            self.synced = true;
            self.backoff = backoff(&self.config, self.config.max_backoff, &mut self.rng);
        }
        self.backoff.succeeded();
        self.may_nudge = true;
        self.n_resyncs = 0;
        self.confirm &= mode != ReadMode::Confirm;
        if matches!(mode, ReadMode::Full | ReadMode::Confirm) {
            let Self { config, rng, .. } = self;
            self.resync_at = config.resync.map(|every| now + jittered(every, rng));
        }
        self.stale_at = self.config.max_silence.map(|silence| now + silence);
        self.verify_at = self.patience().map(|patience| now + patience);
        self.mode = ReadMode::Changed;
        self.not_before = self.rate_limit.next(now);
        if let Some(wanted) = refresh_in {
            self.mode = ReadMode::Full;
            let least = self.config.min_refresh;
            let pause = jittered(wanted.clamp(least, self.config.max_refresh), &mut self.rng);
            self.not_before = self.not_before.max(now + pause.max(least));
            // A polled source sets its own pace.
            (self.stale_at, self.verify_at) = (None, None);
        }
    }

    /// Puts off the verification, and the resync after it, of a source that waits for the end of
    /// its trouble: they fail too, and the pause after a failure, unless failures are rare, is one
    /// in which that end is not seen.
    fn leave_alone(&mut self) {
        let pause = self.patience().unwrap_or_default().max(self.config.max_backoff) + HASTY;
        let earliest = self.not_before + pause;
        for at in [&mut self.verify_at, &mut self.resync_at].into_iter().flatten() {
            *at = earliest.max(*at);
        }
    }

    /// How long a source may be silent before it is verified.
    fn patience(&mut self) -> Option<Duration> {
        let silence = self.config.max_silence?;
        let patience = silence.saturating_sub(self.config.read_timeout).max(silence / 2);
        Some(patience.mul_f64(0.8 + 0.2 * self.rng.f64()))
    }

    fn fail(&mut self, error: Error) {
        let pause = self.backoff.next_pause_after(&error);
        tracing::debug!(backend = self.backend, error = %error.chain(), ?pause, "read failed");
        // A caller that waits for the first set may cut the pause; a token that was refused stays
        // refused.
        self.may_nudge = !self.synced && error.is_transient();
        self.next(ReadMode::Full, pause);
        self.sink.failed(error);
    }

    fn next(&mut self, mode: ReadMode, pause: Duration) {
        self.mode = mode;
        self.not_before = Instant::now() + pause;
    }

    fn mode(&self) -> ReadMode {
        if self.confirm { ReadMode::Confirm } else { self.mode }
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.backend, "follow")
    }
}

fn is_due(at: Option<Instant>) -> bool {
    at.is_some_and(|at| at <= Instant::now())
}

fn backoff(config: &FollowConfig, max: Duration, rng: &mut Rng) -> Backoff {
    let backoff = Backoff::new(config.initial_backoff, max).with_seed(rng.u64(..));
    backoff.with_denied_pause(config.denied_interval)
}

/// Within 10 % of `duration`, so that clients that were started together do not read together.
fn jittered(duration: Duration, rng: &mut Rng) -> Duration {
    duration.mul_f64(0.9 + 0.2 * rng.f64())
}

/// A result within this time of its request came without waiting; resyncs and confirmations of many
/// clients are spread over as much.
const HASTY: Duration = Duration::from_secs(1);
const MAX_CALM: Duration = Duration::from_secs(5);
/// A position that is lost again before anything was read is lost for a reason.
const MAX_RESYNCS: u32 = 3;
