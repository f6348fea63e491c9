//! Where the demo's servers register and its client follows them.

use std::{process, time::Duration};

use tower_sd::{BoxError, Instancer, MemoryRegistry};

use crate::service;

/// A registry, and a service in it that no other run uses.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    /// Without one, the registry is in memory.
    url: Option<String>,
    memory: tower_sd::Registry,
    service: String,
}

impl Registry {
    /// The one that `url` names; without it, one in memory.
    pub(crate) fn new(url: Option<&str>) -> Result<Self, BoxError> {
        url.map(tower_sd::open).transpose()?;
        let service = format!("{}-demo-{}-{:08x}", service::NAME, process::id(), fastrand::u32(..));
        let memory = MemoryRegistry::new().into();
        Ok(Self { url: url.map(ToOwned::to_owned), memory, service })
    }

    /// As one process sees it: with connections of its own, which end with the runtime that this is
    /// called in.
    pub(crate) fn open(&self) -> Result<tower_sd::Registry, BoxError> {
        Ok(match &self.url {
            None => self.memory.clone(),
            Some(url) => tower_sd::open(url)?,
        })
    }

    pub(crate) fn instancer(&self) -> Result<impl Instancer + use<>, BoxError> {
        Ok(self.open()?.instancer(self.service.as_str())?)
    }

    pub(crate) fn service(&self) -> &str {
        &self.service
    }
}

/// Shows the killed server leave, and a busy machine renews in time; etcd grants no less than 2 s.
pub(crate) const TTL: Duration = Duration::from_secs(3);
