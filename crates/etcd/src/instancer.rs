use std::sync::Arc;

use tower_sd_core::{
    Error, ErrorKind, FollowConfig, Follower, Instance, Instancer, PublisherConfig, Result,
    Subscription,
};

use crate::{
    BACKEND, Codec, EtcdClient,
    key::{Range, service_range},
    source::{Decode, EtcdSource},
};

/// Follows one service: a list at a revision, and a watch from the next one.
#[derive(Clone, Debug)]
pub struct EtcdInstancer(Follower);

impl EtcdInstancer {
    /// Follows `service` with the default settings.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(client: &EtcdClient, service: impl Into<String>) -> Self {
        let service = service.into();
        let publisher = PublisherConfig::new(BACKEND, service.as_str());
        Self::with_config(client, service, publisher, FollowConfig::new(BACKEND))
    }

    /// Follows `service` with settings of the loss guard, of addresses and of the loop.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn with_config(
        client: &EtcdClient,
        service: impl Into<String>,
        publisher: PublisherConfig,
        follow: FollowConfig,
    ) -> Self {
        let config = client.config();
        let range = service_range(&config.prefix, &service.into());
        let instances = range.clone().map(|range| Instances::new(range, config.codecs.clone()));
        let source = EtcdSource::new(client, range, instances);
        Self(Follower::new(source, publisher, follow))
    }

    /// Ends the loop and its watch, and waits for that; subscriptions keep the last set. The
    /// client's connection stays open for others.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the loop still ends; only the waiting is lost.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

impl Instancer for EtcdInstancer {
    fn subscribe(&self) -> Subscription {
        self.0.subscribe()
    }
}

/// The format of the values of a service's keys.
pub(crate) struct Instances {
    range: Range,
    codecs: Vec<Arc<dyn Codec>>,
}

impl Instances {
    pub(crate) fn new(range: Range, codecs: Vec<Arc<dyn Codec>>) -> Self {
        Self { range, codecs }
    }
}

impl Decode for Instances {
    type Item = Instance;

    /// The first codec that understands it; the error is the first codec's, which is the one that
    /// writes.
    fn decode(&self, key: &[u8], value: &[u8], _revision: i64) -> Result<Instance> {
        let id = self.range.id_of(key);
        let mut first = None;
        for codec in &self.codecs {
            match codec.decode(&id, value) {
                Ok(instance) => return Ok(instance),
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        let error = Error::new(ErrorKind::Protocol, BACKEND, "decode").with_instance((*id).into());
        Err(match first {
            Some(cause) => error.with_source(cause),
            None => error,
        })
    }
}
