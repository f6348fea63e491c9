//! Where the demo's servers register and its client follows them.

use std::{process, sync::Arc, time::Duration};

use tower_sd::{BoxError, Instancer, MemoryRegistry, Registrar, RegistryConfig};

use crate::{registry, service};

/// A registry, and a service in it that no other run knows.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    place: Place,
    service: String,
}

#[derive(Clone, Debug)]
enum Place {
    Memory(Arc<MemoryRegistry>),
    Url(String),
}

impl Registry {
    /// The one that `url` names; without it, one in memory.
    pub(crate) fn new(url: Option<&str>) -> Result<Self, BoxError> {
        let place = match url {
            None => {
                let config = RegistryConfig::default().ttl(TTL);
                Place::Memory(Arc::new(MemoryRegistry::with_config(config)))
            }
            Some(url) if registry::registrar(url)?.is_some() => Place::Url(url.to_owned()),
            Some(url) => return Err(format!("servers cannot register at {url:?}").into()),
        };
        let service = format!("{}-demo-{}-{:08x}", service::NAME, process::id(), fastrand::u32(..));
        Ok(Self { place, service })
    }

    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// As one server sees it: with connections of its own, which end with the runtime that this is called in.
    pub(crate) fn registrar(&self) -> Result<Arc<dyn Registrar>, BoxError> {
        match &self.place {
            Place::Memory(registry) => Ok(Arc::new(MemoryRegistry::clone(registry))),
            Place::Url(url) => {
                let registrar = registry::registrar_with_ttl(url, TTL)?;
                registrar.ok_or_else(|| "nowhere to register".into())
            }
        }
    }

    /// As the client sees it.
    pub(crate) fn instancer(&self) -> Result<Box<dyn Instancer>, BoxError> {
        match &self.place {
            Place::Memory(registry) => Ok(Box::new(registry.instancer(&self.service))),
            Place::Url(url) => registry::instancer(url, &self.service),
        }
    }
}

/// Lets the audience see the killed server leave, and a busy machine renew in time; etcd grants no less than 2 s.
const TTL: Duration = Duration::from_secs(3);
