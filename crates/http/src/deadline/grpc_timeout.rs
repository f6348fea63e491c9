//! The value of the header `grpc-timeout` (gRPC's `PROTOCOL-HTTP2.md`).

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// The header.
pub const NAME: HeaderName = HeaderName::from_static("grpc-timeout");

/// At most eight digits and a unit; `None` for anything else.
pub fn parse(text: &str) -> Option<Duration> {
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

/// Writes it in the finest unit that has room for it.
///
/// It is rounded down: a server that is late is of no use.
#[expect(clippy::missing_panics_doc, reason = "digits and a letter are a value")]
pub fn format(left: Duration) -> HeaderValue {
    let units =
        [(left.as_micros(), 'u'), (left.as_millis(), 'm'), (u128::from(left.as_secs()), 'S')];
    let fits = units.into_iter().find(|(n, _)| *n <= MAX);
    let hours = u128::from(left.as_secs() / 3600).min(MAX);
    let (n, unit) = fits.unwrap_or((hours, 'H'));
    HeaderValue::try_from(format!("{n}{unit}")).expect("digits and a letter")
}

/// Eight digits.
const MAX: u128 = 99_999_999;

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
}
