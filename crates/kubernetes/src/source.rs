//! Follows the slices of a service.

use std::{collections::BTreeMap, sync::Arc};

use tower_sd_core::{Instance, ReadMode, ReadRequest, ReadResult, Result, Source, async_trait};

use crate::{
    Family, Query,
    client::{KubernetesClient, Slices, Update, object::EndpointSlice},
    mapping::{self, Mapped},
};

/// The wire of one followed service.
pub(crate) struct KubernetesSource {
    client: KubernetesClient,
    query: Query,
    slices: Slices,
    /// The slices of the last set.
    last: BTreeMap<String, Part>,
}

/// A slice, and its instances.
struct Part {
    slice: Result<Arc<EndpointSlice>>,
    mapped: Mapped,
}

impl KubernetesSource {
    pub(crate) fn new(client: KubernetesClient, query: Query) -> Self {
        let slices = client.slices(&query.service);
        Self { client, query, slices, last: BTreeMap::new() }
    }

    /// The set of what is known now.
    fn set(&mut self) -> ReadResult {
        let config = self.client.config();
        let (known, query) = (self.slices.known(), &self.query);
        // The endpoints of a slice that lists them no more have left. Those of a slice that is gone
        // may be lost.
        let vanished = self.last.keys().any(|name| !known.contains_key(name));
        let mut last = std::mem::take(&mut self.last);
        for (name, slice) in known {
            let part = match last.remove(name) {
                Some(part) if is_same(&part.slice, slice) => part,
                _ => Part { slice: slice.clone(), mapped: map(slice, query, config.family) },
            };
            self.last.insert(name.clone(), part);
        }
        let parts = self.last.values().map(|part| &part.mapped);
        match mapping::join(parts, query, config.family, config.zone.as_deref()) {
            Ok(entries) if vanished || entries.iter().any(Result::is_err) => {
                ReadResult::set(entries)
            }
            Ok(entries) => ReadResult::set(entries).with_accepted_absences(),
            Err(error) => ReadResult::trouble(error),
        }
    }

    async fn list(&mut self, max_entries: usize) -> Result<ReadResult> {
        self.query.validate()?;
        match self.slices.list(max_entries).await? {
            true => Ok(self.set()),
            false => Ok(ReadResult::resync("expired while listing")),
        }
    }
}

#[async_trait]
impl Source for KubernetesSource {
    type Item = Instance;

    /// Every list is consistent, so that there is nothing stronger for `Confirm`.
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        match request.mode {
            ReadMode::Changed => Ok(match self.slices.next(request.max_entries).await {
                Update::Changed => self.set(),
                Update::Alive => ReadResult::unchanged(),
                Update::Trouble(error) => ReadResult::trouble(error),
                Update::Expired => ReadResult::resync("the position has expired"),
            }),
            _ => self.list(request.max_entries).await,
        }
    }
}

fn is_same(a: &Result<Arc<EndpointSlice>>, b: &Result<Arc<EndpointSlice>>) -> bool {
    matches!((a, b), (Ok(a), Ok(b)) if Arc::ptr_eq(a, b))
}

fn map(slice: &Result<Arc<EndpointSlice>>, query: &Query, family: Family) -> Mapped {
    match slice {
        Ok(slice) => mapping::slice(slice, query, family),
        Err(error) => mapping::malformed_slice(error.clone()),
    }
}
