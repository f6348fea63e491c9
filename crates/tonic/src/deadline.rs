//! `grpc-timeout`: how long a call may take.
//!
//! All attempts and the whole answer are included.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::time::Instant;
use tonic::Status;

/// When a call's time is over. As an extension of a request it was set by who saw the call begin;
/// the header counts anew with each attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    granted: Duration,
}

impl Deadline {
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        let begun = request.extensions().get::<Self>().copied();
        begun.or_else(|| Self::from_headers(request.headers()))
    }

    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let granted = parse(headers.get(TIMEOUT)?.to_str().ok()?)?;
        Some(Self { at: Instant::now().checked_add(granted)?, granted })
    }

    /// The earlier of a call's deadline and that of the retry above it.
    pub(crate) fn before(deadline: Option<Self>, at: Option<Instant>) -> Option<Self> {
        match (deadline, at) {
            (Some(deadline), Some(at)) if deadline.at <= at => Some(deadline),
            (deadline, None) => deadline,
            (_, Some(at)) => {
                Some(Self { at, granted: at.saturating_duration_since(Instant::now()) })
            }
        }
    }

    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    pub(crate) fn is_over(&self) -> bool {
        self.at <= Instant::now()
    }

    /// Sends the server the rest of it.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(TIMEOUT, format(self.at.saturating_duration_since(Instant::now())));
    }

    pub(crate) fn status(&self) -> Status {
        Status::deadline_exceeded(format!("no end within {:?}", self.granted))
    }
}

/// At most eight digits and a unit (gRPC's `PROTOCOL-HTTP2.md`).
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

/// In the finest unit that has room for it; rounded down, for a server that is late is no help.
fn format(left: Duration) -> HeaderValue {
    let units =
        [(left.as_micros(), 'u'), (left.as_millis(), 'm'), (u128::from(left.as_secs()), 'S')];
    let fits = units.into_iter().find(|(n, _)| *n <= MAX);
    let hours = u128::from(left.as_secs() / 3600).min(MAX);
    let (n, unit) = fits.unwrap_or((hours, 'H'));
    HeaderValue::try_from(format!("{n}{unit}")).expect("digits and a letter")
}

/// Eight digits.
const MAX: u128 = 99_999_999;

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_up_to_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("1n", Duration::from_nanos(1)),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in ["", "S", "5", "5s", "+5S", "123456789m", "5€"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_left_is_written_in_the_finest_unit_with_room() {
        let written = |left| format(left).to_str().expect("ASCII").to_owned();
        assert_eq!(written(Duration::from_nanos(1_500)), "1u");
        assert_eq!(written(Duration::from_secs(99)), "99000000u");
        assert_eq!(written(Duration::from_secs(100)), "100000m");
        assert_eq!(written(Duration::from_secs(200_000)), "200000S");
        assert_eq!(written(Duration::from_secs(3600 * 1_000_000_000)), "99999999H");
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_that_was_set_before_counts_and_not_the_header() {
        let mut request = Request::new(());
        request.headers_mut().insert(TIMEOUT, HeaderValue::from_static("2S"));
        let deadline = Deadline::of(&request).expect("a deadline");
        request.extensions_mut().insert(deadline);
        tokio::time::advance(Duration::from_millis(500)).await;
        let again = Deadline::of(&request).expect("a deadline");
        again.write(request.headers_mut());
        assert_eq!(request.headers()[TIMEOUT], "1500000u");
        assert!(!again.is_over());
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert!(again.is_over());
    }
}
