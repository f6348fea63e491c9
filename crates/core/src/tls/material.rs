use std::fmt;

use crate::Secret;

/// The PEM texts that a [`TlsConfig`](super::TlsConfig) names.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct TlsMaterial {
    /// Increases by one with each change of a text.
    pub generation: u64,
    /// The trusted authorities; `None` stands for the operating system's.
    pub roots: Option<String>,
    /// The client certificate with its chain, and its key.
    pub identity: Option<(String, Secret)>,
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsMaterial").field("generation", &self.generation).finish_non_exhaustive()
    }
}
