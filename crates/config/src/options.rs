use std::sync::Arc;

use tower_sd_core::FollowConfig;

/// The settings of a [`WatchedConfig`](crate::WatchedConfig).
#[derive(Clone, Debug)]
#[must_use]
pub struct WatchOptions<T> {
    pub(crate) format: Format,
    pub(crate) default: Option<Arc<T>>,
    pub(crate) when_deleted: OnDelete,
    pub(crate) follow: FollowConfig,
}

/// The language of the values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Format {
    /// JSON.
    Json,
    /// TOML. Below a prefix a value is what stands to the right of a `=`.
    Toml,
}

/// What the value is once its key is gone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
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

    /// Sets the value until the registry has one.
    ///
    /// With it, a program starts while the registry is down.
    pub fn default_value(self, value: T) -> Self {
        Self { default: Some(Arc::new(value)), ..self }
    }

    /// What the value is once its key is gone. Default [`OnDelete::KeepLast`].
    pub fn on_delete(self, policy: OnDelete) -> Self {
        Self { when_deleted: policy, ..self }
    }

    /// Settings of the loop: backoff, rate limit, resync.
    pub fn follow(self, follow: FollowConfig) -> Self {
        Self { follow, ..self }
    }
}
