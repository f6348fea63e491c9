//! The wire of everything that is followed.

mod known;

use std::sync::Arc;

use etcd_client::GetOptions;
use tower_sd_core::{ReadMode, ReadRequest, ReadResult, Result, Source, async_trait};

use self::known::Known;
use crate::{
    EtcdClient,
    client::{Change, Ended, Position, Watch},
    key::Range,
};

/// Follows a range of keys: a list at a revision, and a watch from the next one.
pub(crate) struct EtcdSource<D: Decode> {
    client: EtcdClient,
    /// What is followed, or why that cannot be.
    what: Result<(Range, Arc<D>)>,
    /// What the last list said, and the watch that began behind it.
    following: Option<(Known<D>, Watch)>,
}

/// Makes an item of a key and its value.
pub(crate) trait Decode: Send + Sync + 'static {
    type Item: Clone + Send + Sync + 'static;

    fn decode(&self, key: &[u8], value: &[u8], revision: i64) -> Result<Self::Item>;
}

#[async_trait]
impl<D: Decode> Source for EtcdSource<D> {
    type Item = D::Item;

    /// Every list is linearizable, so that there is nothing stronger for `Confirm`.
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult<D::Item>> {
        match request.mode {
            ReadMode::Changed => self.changed().await,
            _ => self.list().await,
        }
    }
}

impl<D: Decode> EtcdSource<D> {
    pub(crate) fn new(client: &EtcdClient, range: Result<Range>, decode: Result<D>) -> Self {
        let what = range.and_then(|range| Ok((range, Arc::new(decode?))));
        Self { client: client.clone(), what, following: None }
    }

    async fn list(&mut self) -> Result<ReadResult<D::Item>> {
        self.following = None;
        let (range, decode) = self.what.clone()?;
        let Some((position, list)) = self.pages(&range).await? else {
            return Ok(ReadResult::resync("compacted while listing"));
        };
        let known = Known::new(decode, position.revision, list);
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

    async fn changed(&mut self) -> Result<ReadResult<D::Item>> {
        let Some((known, watch)) = &mut self.following else {
            return Ok(ReadResult::resync("not watching"));
        };
        loop {
            let mut changed = match watch.next().await {
                Ok(changes) => known.apply(changes),
                Err(Ended::Resync(reason)) => return Ok(ReadResult::resync(reason)),
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
