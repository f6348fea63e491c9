use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::{AnnounceConfig, Backoff, Error, ErrorKind, LeaseTtl, Registration};

/// The times of a registration: decides what is due next, and how long it may take.
pub(super) struct Schedule {
    pub(super) config: AnnounceConfig,
    /// An entry that was taken over is taken back.
    reclaim: bool,
    backoff: Backoff,
    /// Pauses are short until then: something may wait for the first answer.
    first_until: Option<Instant>,
    /// The longest time of a check until a TTL is granted.
    first_check: Duration,
    rng: Rng,
    /// The latest TTL that the registry has granted.
    ttl: Option<LeaseTtl>,
    /// `Some` while the entry is in the registry and this registration's.
    lease: Option<Lease>,
    /// When to announce; `None` if nothing is to be announced.
    announce_at: Option<Instant>,
    /// The latest attempt to announce.
    announced_at: Option<Instant>,
}

/// A call, or the health check. Of several that are due at one time, the first one here comes
/// first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Step {
    Check,
    Renew,
    Announce,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// When the registry has proved the entry's life last: the start of that call.
    proved_at: Instant,
    renew_at: Instant,
}

impl Schedule {
    pub(super) fn new(
        mut config: AnnounceConfig,
        registration: &Registration,
        now: Instant,
    ) -> Self {
        config.call_timeout = config.call_timeout.max(MIN_ATTEMPT);
        config.max_backoff = config.max_backoff.max(MIN_CAP);
        let mut rng = config.seed.map_or_else(Rng::new, Rng::with_seed);
        let first = registration.first_timeout;
        let cap = (first / 5).clamp(MIN_CAP, config.max_backoff);
        Self {
            backoff: backoff(&config, cap, &mut rng),
            first_until: now.checked_add(first),
            first_check: (first / 2).min(registration.lease_ttl() / 3),
            config,
            reclaim: registration.reclaim,
            rng,
            ttl: None,
            lease: None,
            announce_at: Some(now),
            announced_at: None,
        }
    }

    /// Returns the next step and its time.
    pub(super) fn next(&self, check_at: Option<Instant>) -> Option<(Instant, Step)> {
        let check = check_at.map(|at| (at, Step::Check));
        let renew = self.lease.map(|lease| (lease.renew_at, Step::Renew));
        let announce = self.announce_at.map(|at| (at, Step::Announce));
        [check, renew, announce].into_iter().flatten().min()
    }

    pub(super) fn is_registered(&self) -> bool {
        self.lease.is_some()
    }

    pub(super) fn was_registered(&self) -> bool {
        self.ttl.is_some()
    }

    /// The TTL has passed since the last proof: the registry was away, or this process suspended.
    pub(super) fn is_expired(&self) -> bool {
        self.lease.zip(self.ttl()).is_some_and(|(lease, ttl)| lease.proved_at.elapsed() >= ttl)
    }

    pub(super) fn renew_interval(&self) -> Duration {
        self.ttl.map_or(DEFAULT_RENEWAL, |ttl| ttl.renew_interval())
    }

    /// A third of the TTL at most, as a check delays the renewal after it.
    pub(super) fn check_timeout(&self) -> Duration {
        let bound = match self.ttl {
            None => self.first_check,
            Some(granted) => granted.ttl().map_or(Duration::MAX, |ttl| ttl / 3),
        };
        self.config.health_timeout.min(bound).max(MIN_CHECK)
    }

    /// Half of the TTL at most, so that another renewal fits into it.
    pub(super) fn renew_timeout(&self) -> Duration {
        self.config.call_timeout.min(self.ttl().map_or(Duration::MAX, |ttl| ttl / 2))
    }

    /// Bounds an announcement so that the renewal that is due meanwhile still fits into the TTL.
    pub(super) fn announcing(&mut self, now: Instant) -> Duration {
        self.announced_at = Some(now);
        self.lease.map_or(self.config.call_timeout, |lease| {
            let end = lease.renew_at + self.renew_interval();
            self.config.call_timeout.min(end.saturating_duration_since(now)).max(MIN_ATTEMPT)
        })
    }

    /// Announces now, unless an announcement is due later already.
    pub(super) fn announce(&mut self) {
        self.announce_at.get_or_insert_with(Instant::now);
    }

    /// Renews now.
    pub(super) fn renew(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.renew_at = lease.renew_at.min(Instant::now());
        }
    }

    /// An announcement that began at `start` was accepted.
    pub(super) fn announced(&mut self, ttl: LeaseTtl, start: Instant) {
        self.announce_at = None;
        self.backoff.succeeded();
        let renew_at = self.granted(ttl);
        self.lease = Some(match self.lease {
            // An update need not prolong the lease, and must not postpone its renewal.
            Some(lease) => Lease { renew_at: lease.renew_at.min(renew_at), ..lease },
            None => Lease { proved_at: start, renew_at },
        });
    }

    /// A renewal that began at `start` was accepted.
    pub(super) fn renewed(&mut self, ttl: LeaseTtl, start: Instant) {
        if self.announce_at.is_none() {
            self.backoff.succeeded();
        }
        self.lease = Some(Lease { proved_at: start, renew_at: self.granted(ttl) });
    }

    fn granted(&mut self, ttl: LeaseTtl) -> Instant {
        let interval = ttl.renew_interval();
        if self.ttl.replace(ttl) != Some(ttl) {
            self.restart_backoff(interval.clamp(MIN_CAP, MAX_CAP));
        }
        Instant::now() + self.jittered(interval)
    }

    /// Begins the pauses anew, up to `cap`.
    fn restart_backoff(&mut self, cap: Duration) {
        self.backoff = backoff(&self.config, cap, &mut self.rng);
    }

    /// The pause after a failure, which the backend may limit while its registry is away.
    fn pause_after(&mut self, error: &Error) -> Duration {
        let pause = self.backoff.next_pause_after(error);
        let is_away = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
            && error.retry_after().is_none();
        let cap = self.ttl.and_then(|ttl| ttl.retry_cap).filter(|_| is_away);
        cap.map_or(pause, |cap| pause.min(cap.max(MIN_CAP).mul_f64(self.rng.f64())))
    }

    pub(super) fn renewal_failed(&mut self, error: &Error) -> Duration {
        // A refusal waits no longer than another failure: the TTL goes on.
        let mut pause = self.pause_after(&error.clone().transient());
        let (now, ttl) = (Instant::now(), self.ttl());
        if let Some(lease) = &mut self.lease {
            // A registry that requests a longer pause must not cost the registration.
            let left = ttl.map(|ttl| ttl.saturating_sub(now.duration_since(lease.proved_at)));
            pause = left.map_or(pause, |left| pause.min((left / 2).max(MIN_CAP)));
            lease.renew_at = now + pause;
        }
        pause
    }

    pub(super) fn announcement_failed(&mut self, error: &Error) -> Duration {
        let now = Instant::now();
        if self.ttl.is_none() && self.first_until.take_if(|until| *until <= now).is_some() {
            self.restart_backoff(self.config.max_backoff);
        }
        let pause = self.pause_after(error);
        self.announce_at = Some(now + pause);
        pause
    }

    /// After a refusal that restored another instance: announces that one, if it `is_needed`.
    pub(super) fn restored(&mut self, is_needed: bool) {
        self.announce_at = (is_needed || self.lease.is_none()).then(Instant::now);
    }

    /// The entry is gone. Announces now, unless it was announced a moment ago: two registrations
    /// that replace each other's entry would do it without pause.
    pub(super) fn lost(&mut self) {
        let now = Instant::now();
        let is_recent =
            self.announced_at.is_some_and(|at| now.duration_since(at) < MIN_BETWEEN_LOSSES);
        let pause = if is_recent { self.backoff.next_pause() } else { Duration::ZERO };
        self.lease = None;
        self.announce_at = Some(now + pause);
    }

    /// The entry is another registration's: reclaims it soon, or tries again at the renewal
    /// interval. Returns whether the announcement may replace the entry.
    pub(super) fn taken_over(&mut self) -> bool {
        let pause = match self.reclaim {
            true => self.backoff.next_pause(),
            false => self.jittered(self.renew_interval()),
        };
        self.lease = None;
        self.announce_at = Some(Instant::now() + pause);
        self.reclaim
    }

    /// Nothing is to be announced or renewed.
    pub(super) fn withheld(&mut self) {
        (self.lease, self.announce_at) = (None, None);
    }

    pub(super) fn pause(&mut self) -> Duration {
        self.backoff.next_pause()
    }

    fn ttl(&self) -> Option<Duration> {
        self.ttl.and_then(|ttl| ttl.ttl())
    }

    fn jittered(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(0.9 + 0.1 * self.rng.f64())
    }
}

fn backoff(config: &AnnounceConfig, cap: Duration, rng: &mut Rng) -> Backoff {
    let backoff = Backoff::new(config.initial_backoff, cap).with_seed(rng.u64(..));
    backoff.with_denied_pause(config.denied_interval.min(MAX_CAP))
}

/// Until the registry has granted a TTL: a third of 15 s, the TTL that most backends request.
const DEFAULT_RENEWAL: Duration = Duration::from_secs(5);
pub(super) const MIN_CAP: Duration = Duration::from_secs(1);
const MAX_CAP: Duration = Duration::from_secs(60);
/// The least time for a call, whatever is due after it and whatever is configured.
pub(super) const MIN_ATTEMPT: Duration = Duration::from_millis(500);
const MIN_CHECK: Duration = Duration::from_millis(100);
/// A loss sooner than this after an announcement is followed by a pause.
const MIN_BETWEEN_LOSSES: Duration = Duration::from_secs(1);
