use std::{collections::BTreeMap, sync::Arc};

use etcd_client::{Event, EventType, GetOptions, KeyValue};
use tower_sd_core::{
    Error, ErrorKind, FollowConfig, Follower, Instance, Instancer, PublisherConfig, Read, Reading,
    Result, Source, Subscription, async_trait,
};

use crate::{
    Codec, EtcdClient,
    client::{Ended, Position, Watch},
    error::BACKEND,
    key::{Range, service_range},
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
        let source = EtcdSource {
            client: client.clone(),
            service: service.into(),
            known: Known::default(),
            watch: None,
        };
        Self(Follower::new(source, publisher, follow))
    }

    /// Ends the loop and its watch, and waits for that; subscriptions keep the last set. The client's connection stays
    /// open for others.
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

struct EtcdSource {
    client: EtcdClient,
    service: String,
    known: Known,
    watch: Option<Watch>,
}

/// What is known of the service's keys.
#[derive(Default)]
struct Known {
    /// The highest revision seen; a watch speaks of them in order.
    revision: i64,
    entries: BTreeMap<Vec<u8>, Entry>,
}

struct Entry {
    mod_revision: i64,
    instance: Result<Instance>,
}

#[async_trait]
impl Source for EtcdSource {
    type Item = Instance;

    /// Every list is linearizable, so that there is nothing stronger for `Confirm`.
    async fn read(&mut self, want: Read) -> Result<Reading> {
        match want {
            Read::Full | Read::Confirm => self.list().await,
            Read::Changed => self.changed().await,
        }
    }
}

impl EtcdSource {
    async fn list(&mut self) -> Result<Reading> {
        self.watch = None;
        let range = service_range(&self.client.config().prefix, &self.service)?;
        let Some((position, pairs)) = self.pages(&range).await? else {
            return Ok(Reading::Resync("compacted while listing"));
        };
        let codecs = &self.client.config().codecs;
        self.known = Known {
            revision: position.revision,
            entries: pairs
                .into_iter()
                .map(|pair| (pair.key().to_vec(), Entry::read(&pair, &range, codecs)))
                .collect(),
        };
        self.watch = Some(self.client.watch(range, position));
        Ok(self.known.reading())
    }

    /// All keys of the range as they were at one revision, a page at a time; `None` when it was compacted meanwhile.
    async fn pages(&self, range: &Range) -> Result<Option<(Position, Vec<KeyValue>)>> {
        let mut from = range.start.clone();
        let mut position = None::<Position>;
        let mut pairs = Vec::new();
        loop {
            let revision = position.map_or(0, |it| it.revision);
            let options = GetOptions::new()
                .with_range(range.end.clone())
                .with_limit(PAGE)
                .with_revision(revision);
            let page = self.client.call(|client| {
                let (from, options) = (from.clone(), options.clone());
                let mut kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                async move { kv.get(from, Some(options)).await }
            });
            let mut page = match page.await {
                Ok(page) => page,
                Err(failure) if revision != 0 && failure.is_revision_gone() => return Ok(None),
                Err(failure) => return Err(failure.into_error("follow")),
            };
            let position = *position.get_or_insert_with(|| Position::of(page.header()));
            let more = page.more();
            pairs.extend(page.take_kvs());
            let Some(last) = pairs.last().filter(|_| more) else {
                return Ok(Some((position, pairs)));
            };
            from = last.key().to_vec();
            from.push(0);
        }
    }

    async fn changed(&mut self) -> Result<Reading> {
        let Some(watch) = &mut self.watch else {
            return Ok(Reading::Resync("not watching"));
        };
        let config = self.client.config();
        let range = service_range(&config.prefix, &self.service)?;
        loop {
            let mut changed = false;
            match watch.next().await {
                Ok(events) => changed |= self.known.apply(&events, &range, &config.codecs),
                Err(Ended::Resync(reason)) => return Ok(Reading::Resync(reason)),
                Err(Ended::Failed(error)) => return Err(error),
            }
            while let Some(events) = watch.try_next() {
                changed |= self.known.apply(&events, &range, &config.codecs);
            }
            if changed {
                return Ok(self.known.reading());
            }
        }
    }
}

impl Known {
    /// Applies events, each of them once: several releases of etcd have repeated old ones.
    fn apply(&mut self, events: &[Event], range: &Range, codecs: &[Arc<dyn Codec>]) -> bool {
        let mut changed = false;
        for event in events {
            let Some(pair) = event.kv() else { continue };
            let revision = pair.mod_revision();
            let known = self.entries.get(pair.key());
            if revision < self.revision || known.is_some_and(|it| revision <= it.mod_revision) {
                continue;
            }
            self.revision = revision;
            changed = true;
            match event.event_type() {
                EventType::Put => {
                    let entry = Entry::read(pair, range, codecs);
                    self.entries.insert(pair.key().to_vec(), entry);
                }
                EventType::Delete => {
                    self.entries.remove(pair.key());
                }
            }
        }
        changed
    }

    fn reading(&self) -> Reading {
        Reading::set(self.entries.values().map(|it| it.instance.clone()).collect())
    }
}

impl Entry {
    fn read(pair: &KeyValue, range: &Range, codecs: &[Arc<dyn Codec>]) -> Self {
        Self {
            mod_revision: pair.mod_revision(),
            instance: decode(&range.id_of(pair.key()), pair.value(), codecs),
        }
    }
}

/// The first codec that understands it; the error is the first codec's, which is the one that writes.
fn decode(id: &str, value: &[u8], codecs: &[Arc<dyn Codec>]) -> Result<Instance> {
    let mut first = None;
    for codec in codecs {
        match codec.decode(id, value) {
            Ok(instance) => return Ok(instance),
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    let error = Error::new(ErrorKind::Protocol, BACKEND, "decode").with_instance(id.into());
    Err(match first {
        Some(cause) => error.with_source(cause),
        None => error,
    })
}

/// Some hundred kilobytes of ordinary instances.
const PAGE: i64 = 1000;
/// tonic's own limit of 4 MB is below what a page of large values takes.
const MAX_MESSAGE: usize = 64 << 20;
