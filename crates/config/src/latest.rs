use std::{fmt, sync::Arc};

use tower_sd_core::{Error, Freshness};

/// The value that is in force, and whether it is current.
///
/// `Clone` is a few `Arc`s.
///
/// Value, trouble with reading it and trouble with understanding it are independent of each other:
/// a bad value or a registry that is away never takes a good value away.
pub struct ConfigSnapshot<T> {
    pub(crate) value: Option<Arc<T>>,
    pub(crate) revision: Option<u64>,
    pub(crate) rejected: Option<Error>,
    pub(crate) absent: bool,
    pub(crate) freshness: Freshness,
}

impl<T> ConfigSnapshot<T> {
    /// Returns the value.
    ///
    /// `None` where the registry has none and no default was given, or where it was deleted under
    /// [`OnDelete::Clear`](crate::OnDelete::Clear).
    pub fn value(&self) -> Option<&Arc<T>> {
        self.value.as_ref()
    }

    /// Returns the registry's revision of the value, for a check-and-set.
    ///
    /// Of a prefix it is the highest; `None` while the value is the default or none.
    pub fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// Returns why the registry's text is not the value: it could not be decoded.
    ///
    /// The error names the key, and the line.
    pub fn rejected(&self) -> Option<&Error> {
        self.rejected.as_ref()
    }

    /// Whether the registry has no value (any more).
    ///
    /// The value is then that of the policy.
    pub fn is_absent(&self) -> bool {
        self.absent
    }

    /// Whether the registry has answered, and does.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }
}

impl<T> Clone for ConfigSnapshot<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            revision: self.revision,
            rejected: self.rejected.clone(),
            absent: self.absent,
            freshness: self.freshness.clone(),
        }
    }
}

/// Without the value, which may hold a password.
impl<T> fmt::Debug for ConfigSnapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latest")
            .field("has_value", &self.value.is_some())
            .field("revision", &self.revision)
            .field("rejected", &self.rejected)
            .field("absent", &self.absent)
            .field("freshness", &self.freshness)
            .finish()
    }
}
