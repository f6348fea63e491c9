use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use tower_sd_core::FollowConfig;

/// The settings of a [`WatchedConfig`](crate::WatchedConfig).
///
/// In a configuration they have the names of the setters, and all but `format` may be missing:
///
/// ```
/// # use tower_sd::config::WatchOptions;
/// let options: WatchOptions<u32> = serde_json::from_str(
///     r#"{
///         "format": "toml",
///         "default_value": 5,
///         "on_delete": "clear",
///         "follow": {"resync": "5m"}
///     }"#,
/// )?;
/// # drop(options);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[must_use]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
pub struct WatchOptions<T> {
    pub(crate) format: Format,
    #[serde(rename = "default_value", default, deserialize_with = "shared")]
    pub(crate) default: Option<Arc<T>>,
    #[serde(rename = "on_delete", default)]
    pub(crate) when_deleted: OnDelete,
    #[serde(default)]
    pub(crate) follow: FollowConfig,
}

/// The language of the values.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JSON.
    Json,
    /// TOML. Below a prefix a value is what stands to the right of a `=`.
    Toml,
}

/// What the value is once its key is gone.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum OnDelete {
    /// The last good one: a registry that was wiped changes nothing. The default.
    #[default]
    KeepLast,
    /// The [`default_value`](WatchOptions::default_value); none where none was given.
    Default,
    /// None.
    Clear,
}

impl<T> WatchOptions<T> {
    /// Values are JSON; there is none until the registry has answered.
    pub fn json() -> Self {
        Self::new(Format::Json)
    }

    /// Values are TOML; there is none until the registry has answered.
    pub fn toml() -> Self {
        Self::new(Format::Toml)
    }

    /// Values are of this format; there is none until the registry has answered.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            default: None,
            when_deleted: OnDelete::default(),
            follow: FollowConfig::default(),
        }
    }

    /// Sets the value until the registry has one. Defaults to none.
    ///
    /// With it, a program starts while the registry is down.
    pub fn default_value(self, value: T) -> Self {
        Self { default: Some(Arc::new(value)), ..self }
    }

    /// What the value is once its key is gone. Default [`OnDelete::KeepLast`].
    pub fn on_delete(self, policy: OnDelete) -> Self {
        Self { when_deleted: policy, ..self }
    }

    /// Sets the settings of the loop: backoff, rate limit, resync.
    ///
    /// Defaults to [`FollowConfig::default`].
    pub fn follow(self, follow: FollowConfig) -> Self {
        Self { follow, ..self }
    }
}

fn shared<'de, T, D>(deserializer: D) -> Result<Option<Arc<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(|value| Some(Arc::new(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_has_the_options_of_the_code() {
        let parse = |text| serde_json::from_str::<WatchOptions<u32>>(text);
        let options = parse(r#"{"format": "json", "default_value": 5, "on_delete": "keep_last"}"#);
        let options = options.expect("options");
        assert_eq!((options.format, options.default), (Format::Json, Some(Arc::new(5))));
        assert_eq!(options.when_deleted, OnDelete::KeepLast);
        let options = parse(r#"{"format": "toml", "on_delete": "default"}"#).expect("options");
        assert_eq!((options.format, options.default), (Format::Toml, None));
        assert_eq!(options.when_deleted, OnDelete::Default);
        for (text, field) in [("{}", "format"), (r#"{"format": "json", "on_del": 1}"#, "on_del")] {
            assert!(parse(text).expect_err(text).to_string().contains(field), "{text}");
        }
    }
}
