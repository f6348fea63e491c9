//! Durations as texts, in URLs and configuration files: `250ms`, `15s`, `5m`, `1h`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{Error, ErrorKind};

/// Parses a whole number with one of the units `ms`, `s`, `m` and `h`.
///
/// ```
/// use std::time::Duration;
/// use tower_sd::backend::duration;
///
/// assert_eq!(duration::parse("1500ms"), Some(Duration::from_millis(1500)));
/// assert_eq!(duration::parse("15"), None);
/// ```
pub fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(millis).map(Duration::from_millis)
}

/// Refuses a TTL that is not from 1 s to 24 h.
///
/// A busy machine would not renew a shorter one in time, and a longer one is a wrong unit.
///
/// # Errors
///
/// `Config`.
pub fn check_ttl(
    backend: &'static str,
    operation: &'static str,
    ttl: Duration,
) -> Result<(), Error> {
    match (MIN_TTL..=MAX_TTL).contains(&ttl) {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Config, backend, operation)
            .with_message(format!("ttl = {ttl:?}: has to be between 1 s and 24 h"))),
    }
}

/// Deserializes a text that [`parse`] accepts: for `#[serde(deserialize_with)]`.
///
/// # Errors
///
/// The value is not such a text.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(expected(&text)))
}

/// Deserializes a text that [`parse`] accepts, or `never` for `None`.
///
/// # Errors
///
/// The value is neither.
pub fn deserialize_option<'de, D>(deserializer: D) -> Result<Option<Duration>, D::Error>
where
    D: Deserializer<'de>,
{
    match String::deserialize(deserializer)?.as_str() {
        "never" => Ok(None),
        text => parse(text).map(Some).ok_or_else(|| D::Error::custom(expected(text))),
    }
}

/// As [`deserialize`], for a field that is `None` where the text is missing.
pub(crate) fn deserialize_some<'de, D>(deserializer: D) -> Result<Option<Duration>, D::Error>
where
    D: Deserializer<'de>,
{
    deserialize(deserializer).map(Some)
}

const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest duration of the loops: an `Instant` cannot be as far away as a `Duration` is long.
pub(crate) const MAX: Duration = Duration::from_secs(30 * 24 * 3600);

pub(crate) fn expected(text: &str) -> String {
    format!("{text:?} is not a time such as 30s, 500ms or 2m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        let seconds = |n| Some(Duration::from_secs(n));
        let rows =
            [("0s", seconds(0)), ("15s", seconds(15)), ("2m", seconds(120)), ("1h", seconds(3600))];
        for (text, expected) in rows {
            assert_eq!(parse(text), expected, "{text}");
        }
        for text in [
            "",
            "s",
            "5",
            "-5s",
            "5 s",
            "5d",
            "1.5s",
            "99999999999999999999s",
            "9999999999999999999h",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn deserialized_durations_are_texts() {
        #[derive(Debug, Deserialize)]
        struct Times {
            #[serde(deserialize_with = "deserialize")]
            a: Duration,
            #[serde(deserialize_with = "deserialize_option")]
            b: Option<Duration>,
        }
        let times: Times = serde_json::from_str(r#"{"a": "5m", "b": "never"}"#).expect("two times");
        assert_eq!((times.a, times.b), (Duration::from_secs(300), None));
        let error = serde_json::from_str::<Times>(r#"{"a": "5", "b": "1s"}"#).expect_err("no unit");
        assert!(error.to_string().contains("\"5\" is not a time such as"), "{error}");
    }
}
