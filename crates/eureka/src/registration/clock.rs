/// Timestamps of one registration: milliseconds since the Unix epoch, strictly increasing.
///
/// A server ignores an entry that is older than its own. So each timestamp is above the last one
/// and above that of the entry that the server has, whatever the clock of this machine shows.
#[derive(Debug)]
pub(super) struct Clock {
    now: fn() -> i64,
    last: i64,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { now: milliseconds, last: 0 }
    }

    /// The next timestamp, above `found`.
    pub(super) fn next(&mut self, found: Option<i64>) -> i64 {
        let least = self.last.max(found.unwrap_or(0)).saturating_add(1);
        self.last = (self.now)().max(least);
        self.last
    }
}

#[expect(clippy::disallowed_types, reason = "servers compare wall-clock times")]
fn milliseconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_increase_although_the_clock_went_back() {
        let mut clock = Clock { now: || 100, last: 0 };
        assert_eq!((clock.next(None), clock.next(None)), (100, 101));
        assert_eq!(clock.next(Some(5_000)), 5_001);
        assert_eq!(clock.next(Some(200)), 5_002);
        assert!(milliseconds() > 1_700_000_000_000);
    }
}
