//! The wire of everything that is followed.

mod decode;
mod instances;
mod keys;
mod pages;
mod state;

use std::{sync::Arc, time::Duration};

use etcd_client::{GetOptions, SortOrder, SortTarget};
use tokio::time::timeout;
use tower_sd_core::{KeyValue, ReadMode, ReadRequest, ReadResult, Result, Source, async_trait};

use self::{
    decode::Decode,
    instances::Instances,
    keys::Keys,
    pages::{pages, too_many},
    state::State,
};
use crate::{
    client::{Change, Ended, EtcdClient, Position, Update, Watch},
    key::{Range, service_range},
};

/// Follows a range of keys: a list at a revision, and a watch from the next one.
pub(crate) struct EtcdSource<D: Decode> {
    client: EtcdClient,
    /// What is followed, or why that cannot be.
    what: Result<(Range, Arc<D>)>,
    /// The last list with all changes since, and the watch that reports them.
    following: Option<(State<D>, Watch)>,
}

/// Creates the source of a service's instances.
pub(crate) fn instances(client: &EtcdClient, service: &str) -> EtcdSource<Instances> {
    let config = client.config();
    let range = service_range(&config.prefix, service);
    let instances = range.clone().map(|range| Instances::new(range, config.codecs.clone()));
    EtcdSource::new(client, range, instances)
}

/// Creates the source of a key, or of all keys below a `path` that is empty or ends in a slash.
pub(crate) fn keys(client: &EtcdClient, path: &str) -> Box<dyn Source<Item = KeyValue>> {
    let (range, prefix) = match path.is_empty() || path.ends_with('/') {
        true => (Range::below(path.as_bytes()), Some(path.to_owned())),
        false => (Range::one(path.as_bytes().to_vec()), None),
    };
    Box::new(EtcdSource::new(client, Ok(range), Ok(Keys { prefix })))
}

#[async_trait]
impl<D: Decode> Source for EtcdSource<D> {
    type Item = D::Item;

    /// Every list is linearizable, so that there is nothing stronger for `Confirm`.
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult<D::Item>> {
        match request.mode {
            ReadMode::Changed => self.changed(request.max_entries).await,
            ReadMode::Verify => match self.is_current().await {
                Ok(true) => Ok(ReadResult::unchanged()),
                Ok(false) => match timeout(LAG, self.changed(request.max_entries)).await {
                    // A healthy watch is behind by a moment.
                    Ok(Ok(result)) if result.entries().is_some() => Ok(result),
                    // What it has missed, it may miss again.
                    _ => {
                        self.following = None;
                        self.list(request).await
                    }
                },
                // The watch waits for the cluster: no reason to list everything then.
                Err(error) => Ok(ReadResult::trouble(error)),
            },
            _ => self.list(request).await,
        }
    }
}

impl<D: Decode> EtcdSource<D> {
    pub(crate) fn new(client: &EtcdClient, range: Result<Range>, decode: Result<D>) -> Self {
        let what = range.and_then(|range| Ok((range, Arc::new(decode?))));
        Self { client: client.clone(), what, following: None }
    }

    async fn list(&mut self, request: ReadRequest) -> Result<ReadResult<D::Item>> {
        // A watch that is not in doubt goes on: only a loss has to be confirmed.
        let kept = self.following.take().filter(|_| request.mode != ReadMode::Full);
        let (range, decode) = self.what.clone()?;
        let list = match pages(&self.client, &range, request.max_entries).await {
            Ok(Some(list)) => list,
            Ok(None) => return Ok(ReadResult::resync("compacted while listing")),
            Err(error) => {
                self.following = kept;
                return Err(error);
            }
        };
        let state = State::new(decode, list.position, list.entries);
        let reading = state.reading();
        let watch = match kept {
            Some((known, watch)) if known.position().lost_at(list.position).is_none() => watch,
            _ => self.client.watch(range, list.position).await,
        };
        self.following = Some((state, watch));
        Ok(reading)
    }

    /// Whether the watch has reported everything, by one read that transfers at most one key.
    async fn is_current(&self) -> Result<bool> {
        let (Some((state, _)), Ok((range, _))) = (&self.following, &self.what) else {
            return Ok(false);
        };
        let newest = GetOptions::new()
            .with_range(range.end.clone())
            .with_keys_only()
            .with_limit(1)
            .with_sort(SortTarget::Mod, SortOrder::Descend);
        let read = self.client.call(|mut client| {
            let (start, options) = (range.start.clone(), newest.clone());
            async move { client.get(start, Some(options)).await }
        });
        let answer = read.await.map_err(|failure| failure.into_error("follow"))?;
        let newest = answer.kvs().first().map(Change::from);
        Ok(state.is_at(Position::of(answer.header()), answer.count(), newest.as_ref()))
    }

    async fn changed(&mut self, max_entries: usize) -> Result<ReadResult<D::Item>> {
        let Some((state, watch)) = &mut self.following else {
            return Ok(ReadResult::resync("not watching"));
        };
        loop {
            let mut changed = match watch.next().await {
                Ok(Update::Changes(changes)) => state.apply(changes),
                Ok(Update::Alive) => return Ok(ReadResult::unchanged()),
                Ok(Update::Trouble(error)) => return Ok(ReadResult::trouble(error)),
                Err(ended) => {
                    self.following = None;
                    return match ended {
                        Ended::Resync(reason) => Ok(ReadResult::resync(reason)),
                        Ended::Failed(error) => Err(error),
                    };
                }
            };
            while let Some(changes) = watch.try_changes() {
                changed |= state.apply(changes);
            }
            if state.len() > max_entries {
                self.following = None;
                return Err(too_many(max_entries));
            }
            if changed {
                return Ok(state.reading());
            }
        }
    }
}

/// What a read has found, a healthy watch reports within milliseconds.
const LAG: Duration = Duration::from_secs(1);
