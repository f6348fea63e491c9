mod known;

use etcd_client::GetOptions;
use tower_sd_core::{
    FollowConfig, Follower, Instance, Instancer, PublisherConfig, Read, Reading, Result, Source,
    Subscription, async_trait,
};

use self::known::Known;
use crate::{
    EtcdClient,
    client::{Change, Ended, Position, Watch},
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
        let source =
            EtcdSource { client: client.clone(), service: service.into(), following: None };
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
    /// What the last list said, and the watch that began behind it.
    following: Option<(Known, Watch)>,
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
        self.following = None;
        let range = service_range(&self.client.config().prefix, &self.service)?;
        let Some((position, list)) = self.pages(&range).await? else {
            return Ok(Reading::Resync("compacted while listing"));
        };
        let codecs = &self.client.config().codecs;
        let (codecs, revision) = (codecs.clone(), position.revision);
        let known = Known::new(range.clone(), codecs, revision, list);
        let reading = known.reading();
        self.following = Some((known, self.client.watch(range, position)));
        Ok(reading)
    }

    /// All keys of the range as they were at one revision, a page at a time; `None` when it was compacted meanwhile.
    async fn pages(&self, range: &Range) -> Result<Option<(Position, Vec<Change>)>> {
        let mut from = range.start.clone();
        let mut position = None::<Position>;
        let mut list = Vec::new();
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
            let page = match page.await {
                Ok(page) => page,
                Err(failure) if revision != 0 && failure.is_revision_gone() => return Ok(None),
                Err(failure) => return Err(failure.into_error("follow")),
            };
            let position = *position.get_or_insert_with(|| Position::of(page.header()));
            list.extend(page.kvs().iter().map(Change::from));
            let Some(last) = list.last().filter(|_| page.more()) else {
                return Ok(Some((position, list)));
            };
            from.clone_from(&last.key);
            from.push(0);
        }
    }

    async fn changed(&mut self) -> Result<Reading> {
        let Some((known, watch)) = &mut self.following else {
            return Ok(Reading::Resync("not watching"));
        };
        loop {
            let mut changed = match watch.next().await {
                Ok(changes) => known.apply(changes),
                Err(Ended::Resync(reason)) => return Ok(Reading::Resync(reason)),
                Err(Ended::Failed(error)) => return Err(error),
            };
            while let Some(changes) = watch.try_next() {
                changed |= known.apply(changes);
            }
            if changed {
                return Ok(known.reading());
            }
        }
    }
}

/// Some hundred kilobytes of ordinary instances.
const PAGE: i64 = 1000;
/// tonic's own limit of 4 MB is below what a page of large values takes.
const MAX_MESSAGE: usize = 64 << 20;
