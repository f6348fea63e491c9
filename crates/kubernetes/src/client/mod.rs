//! The part of the API that discovery needs, typed.

mod credentials;
mod exec;
mod lines;
pub(crate) mod object;
mod slices;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;

use tower_sd_core::Result;

pub(crate) use self::slices::{Slices, Update};
use self::{object::SERVICE_NAME, wire::Wire};
use crate::KubernetesConfig;

/// A client of one namespace. `Clone` is one `Arc`.
#[derive(Clone, Debug)]
pub(crate) struct KubernetesClient(Arc<Wire>);

impl KubernetesClient {
    /// Creates a client, which connects to nothing yet.
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work, and for files that cannot be read.
    pub(crate) fn new(config: KubernetesConfig) -> Result<Self> {
        Ok(Self(Arc::new(Wire::new(config)?)))
    }

    pub(crate) fn config(&self) -> &KubernetesConfig {
        &self.0.config
    }

    /// The slices of a service.
    pub(crate) fn slices(&self, service: &str) -> Slices {
        Slices::new(Arc::clone(&self.0), format!("{SERVICE_NAME}={service}"))
    }
}
