use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A moving average of latencies, weighted by time: of an endpoint's successes.
///
/// Two plain values without a lock. Requests that end in the same instant may lose one sample,
/// which an average does not notice.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// The bits of seconds as `f64`; 0 while nothing is known.
    ///
    /// While there are failures alone, it is their longest time, negated: a lower bound.
    seconds: AtomicU64,
    /// Of the last sample, in ns since the endpoint's creation.
    sampled: AtomicU64,
}

/// How latencies are averaged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Decay {
    /// After so many seconds a sample weighs 63 % of what is known.
    pub(crate) tau: f32,
    /// A latency above the average replaces it.
    pub(crate) peak: bool,
}

/// When a request was sent whose latency is measured: the age of its endpoint, in ns, and 1.
//
// One word: each request carries it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started(NonZeroU64);

impl Decay {
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.tau.to_bits()) << 1 | u64::from(self.peak)
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        let tau = u32::try_from(bits >> 1).unwrap_or_default();
        Self { tau: f32::from_bits(tau), peak: bits & 1 == 1 }
    }

    fn seconds(self) -> f64 {
        f64::from(self.tau).max(RESOLUTION)
    }
}

impl Started {
    pub(crate) fn new(age: Duration) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanoseconds(age)))
    }

    /// The time since then.
    pub(crate) fn elapsed(self, age: Duration) -> Duration {
        age.saturating_sub(Duration::from_nanos(self.0.get() - 1))
    }
}

impl Latency {
    /// Seconds.
    #[inline]
    pub(crate) fn get(&self) -> Option<f64> {
        let seconds = self.raw();
        (seconds > 0.0).then_some(seconds)
    }

    #[inline]
    fn raw(&self) -> f64 {
        f64::from_bits(self.seconds.load(Relaxed))
    }

    /// What a latency is at least that is not known, in seconds.
    #[inline]
    pub(crate) fn floor(&self) -> f64 {
        -self.raw().min(0.0)
    }

    /// Adds a sample at `now`, the time since the endpoint's creation.
    ///
    /// A failure counts only when it took longer than the average: failing fast is no merit. Of
    /// requests that end in one instant only the first counts much.
    pub(crate) fn add(&self, now: Duration, latency: Duration, decay: Decay, is_success: bool) {
        let sample = latency.as_secs_f64().max(RESOLUTION);
        let at = nanoseconds(now);
        let before = self.sampled.load(Relaxed);
        let value = match self.get() {
            None if is_success => sample,
            None => -sample.max(self.floor()),
            Some(known) if !is_success && sample <= known => return,
            Some(known) if decay.peak && sample > known => sample,
            Some(known) => {
                let since = Duration::from_nanos(at.saturating_sub(before)).as_secs_f64();
                let share = 1.0 - (-since.max(RESOLUTION) / decay.seconds()).exp();
                // Of few samples each is mostly chance.
                let is_one_of_few = !decay.peak && since < decay.seconds();
                let share = if is_one_of_few { share.min(AT_MOST) } else { share };
                known + (sample - known) * share
            }
        };
        self.sampled.store(at, Relaxed);
        self.seconds.store(value.to_bits(), Relaxed);
    }

    /// Adds a rejection at `now`. Without a success the lower bound grows tenfold.
    pub(crate) fn raise(&self, now: Duration) {
        let value = match self.raw() {
            known if known > 0.0 => (known * (1.0 + AT_MOST)).min(known.max(REJECTED)),
            bound => (bound * 10.0).clamp(-REJECTED.max(-bound), -RESOLUTION),
        };
        self.sampled.store(nanoseconds(now), Relaxed);
        self.seconds.store(value.to_bits(), Relaxed);
    }

    /// What is known, else what is typical; one that has only failed is at least its floor.
    pub(crate) fn or_typical(&self, typical: f64) -> f64 {
        self.get().unwrap_or_else(|| self.floor().max(typical))
    }

    /// Goes on from the value that it has drifted to.
    pub(crate) fn go_on(&self, drifted: f64) {
        self.seconds.store(drifted.to_bits(), Relaxed);
    }

    /// The average at `now`; without a sample for longer than τ it drifts to `typical`.
    ///
    /// It has arrived after 7/3 τ more, so that an endpoint that was slow is tried again.
    pub(crate) fn drifted(&self, now: Duration, typical: f64, decay: Decay) -> f64 {
        let known = self.or_typical(typical);
        let age = nanoseconds(now).saturating_sub(self.sampled.load(Relaxed));
        let over = (Duration::from_nanos(age).as_secs_f64() - decay.seconds()).max(0.0);
        if over == 0.0 || known <= typical {
            return known;
        }
        let drifted = typical + (known - typical) * (-over * 3.0 / decay.seconds()).exp();
        let has_arrived = drifted < typical * 1.1 || over * 3.0 >= decay.seconds() * 7.0;
        if has_arrived { typical } else { drifted }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What a sample weighs within τ of the one before: the average is one of ten at least.
const AT_MOST: f64 = 0.1;
/// What rejections raise it to, in seconds: more would be longer than a service takes to recover.
const REJECTED: f64 = 1.0;
/// Shorter times, which a paused clock has, count as this many seconds: 1 µs.
const RESOLUTION: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Decay = Decay { tau: 3.0, peak: false };

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn known(latency: &Latency) -> f64 {
        latency.get().expect("a sample")
    }

    #[test]
    fn one_of_few_samples_weighs_a_tenth() {
        let latency = Latency::default();
        latency.add(at(1.0), at(0.1), DECAY, true);
        latency.add(at(3.0), at(1.1), DECAY, true);
        assert!((known(&latency) - 0.2).abs() < 1e-9, "{latency:?}");
    }

    #[test]
    fn average_follows_time_and_failures_never_improve_it() {
        let latency = Latency::default();
        latency.add(at(0.0), at(0.001), DECAY, false);
        assert_eq!(latency.get(), None, "a failure alone is no latency");
        latency.add(at(1.0), at(0.1), DECAY, true);
        assert!((known(&latency) - 0.1).abs() < 1e-9);
        // One τ later the sample weighs 1 - 1/e.
        latency.add(at(4.0), at(0.2), DECAY, true);
        assert!((known(&latency) - 0.163_2).abs() < 1e-4, "{latency:?}");
        let before = known(&latency);
        latency.add(at(7.0), at(0.001), DECAY, false);
        assert!((known(&latency) - before).abs() < 1e-12, "failing fast changes nothing");
        latency.add(at(10.0), at(1.0), DECAY, false);
        assert!(known(&latency) > 0.6, "a slow failure counts");
    }

    #[test]
    fn peak_is_taken_at_its_full_height() {
        let latency = Latency::default();
        let peak = Decay { peak: true, ..DECAY };
        latency.add(at(0.0), at(0.01), peak, true);
        latency.add(at(0.001), at(1.0), peak, true);
        assert!((known(&latency) - 1.0).abs() < 1e-9);
        latency.add(at(0.002), at(0.01), peak, true);
        assert!(known(&latency) > 0.99);
    }

    #[test]
    fn slow_one_without_samples_drifts_to_what_is_typical() {
        let latency = Latency::default();
        latency.add(at(0.0), at(1.0), DECAY, true);
        let drifted = |seconds| latency.drifted(at(seconds), 0.1, DECAY);
        assert!((drifted(3.0) - 1.0).abs() < 1e-9, "not before τ");
        assert!(drifted(5.0) < 0.5, "{}", drifted(5.0));
        assert!((drifted(8.0) - 0.1).abs() < 1e-9, "{}", drifted(8.0));
        assert!((latency.drifted(at(60.0), 2.0, DECAY) - 1.0).abs() < 1e-9);
        // However slow it was.
        let latency = Latency::default();
        latency.add(at(0.0), at(30.0), DECAY, true);
        let drifted = latency.drifted(at(10.1), 0.01, DECAY);
        assert!((drifted - 0.01).abs() < 1e-9, "{drifted}");
    }

    #[test]
    fn failures_alone_are_a_floor() {
        let latency = Latency::default();
        latency.add(at(1.0), at(0.5), DECAY, false);
        latency.add(at(2.0), at(0.1), DECAY, false);
        let drifted = |seconds, typical| latency.drifted(at(seconds), typical, DECAY);
        assert_eq!((latency.get(), drifted(2.0, 0.1)), (None, 0.5));
        assert_eq!(drifted(2.0, 1.0), 1.0, "failing fast is no merit");
        assert_eq!(drifted(12.1, 0.1), 0.1, "it is tried again");
        latency.add(at(13.0), at(0.2), DECAY, true);
        assert!((known(&latency) - 0.2).abs() < 1e-9, "the first success counts in full");
    }
}
