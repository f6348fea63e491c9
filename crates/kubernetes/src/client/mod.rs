//! The part of the API that discovery needs, typed.

mod credentials;
mod exec;
mod groups;
mod hub;
mod lines;
pub(crate) mod object;
mod selection;
mod slices;
#[cfg(test)]
mod tests;
mod turns;
mod wire;

use std::sync::Arc;

use tower_sd_core::Result;

pub(crate) use self::{
    groups::{Known, View},
    hub::Ticket,
    selection::Listed,
    slices::{Slices, Update},
};
use self::{hub::Sharing, wire::Wire};
use crate::KubernetesConfig;

/// A client of one namespace. `Clone` is one `Arc`.
#[derive(Clone, Debug)]
pub(crate) struct KubernetesClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    wire: Arc<Wire>,
    sharing: Arc<Sharing>,
}

impl KubernetesClient {
    /// Creates a client, which connects to nothing yet.
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work, and for files that cannot be read.
    pub(crate) fn new(config: KubernetesConfig) -> Result<Self> {
        let wire = Arc::new(Wire::new(config)?);
        let sharing = Sharing::new(&wire);
        Ok(Self(Arc::new(Inner { wire, sharing })))
    }

    pub(crate) fn config(&self) -> &KubernetesConfig {
        &self.0.wire.config
    }

    /// The slices of a service.
    pub(crate) fn slices(&self, service: &str) -> Slices {
        Slices::of_service(Arc::clone(&self.0.wire), service)
    }

    /// A place among the followers of this client.
    pub(crate) fn follow(&self, service: &str) -> Ticket {
        self.0.sharing.join(service)
    }
}
