//! Follows the slices of a service.

use std::{collections::BTreeMap, pin::pin, sync::Arc};

use tokio::select;
use tower_sd_core::{
    Error, Instance, ReadMode, ReadRequest, ReadResult, Result, Source, async_trait,
};

use crate::{
    Family, Query,
    client::{
        Known, KubernetesClient, Listed, Slices, Ticket, Update, View, object::EndpointSlice,
    },
    mapping::{self, Mapped},
};

/// The wire of one followed service.
pub(crate) struct KubernetesSource {
    client: KubernetesClient,
    query: Query,
    /// Its own watch, while few services are followed.
    slices: Slices,
    ticket: Ticket,
    /// The last set is of the watch that all followers share.
    is_shared: bool,
    /// The slices of the last set.
    known: View,
    last: BTreeMap<String, Part>,
    /// Why they are no set.
    refused: Option<Error>,
}

/// A slice, and its instances.
struct Part {
    slice: Result<Arc<EndpointSlice>>,
    mapped: Mapped,
}

impl KubernetesSource {
    pub(crate) fn new(client: KubernetesClient, query: Query) -> Self {
        let (slices, ticket) = (client.slices(&query.service), client.follow(&query.service));
        Self {
            client,
            query,
            slices,
            ticket,
            is_shared: false,
            known: View::default(),
            last: BTreeMap::new(),
            refused: None,
        }
    }

    /// Waits for other slices, or for proof that they are the same.
    async fn changed(&mut self, max_entries: usize) -> Result<ReadResult> {
        let mut switched = pin!(self.ticket.sharing(!self.is_shared));
        loop {
            let update = match self.is_shared {
                false => select! {
                    biased;
                    () = &mut switched => None,
                    update = self.slices.next(max_entries) => Some(update),
                },
                true => select! {
                    biased;
                    () = &mut switched => None,
                    update = self.ticket.next(&self.known) => Some(update),
                },
            };
            match update {
                None => return self.now(max_entries).await,
                Some(Update::Changed) => {
                    let before = self.refused.as_ref().map(ToString::to_string);
                    let latest = self.latest();
                    let result = self.set(latest);
                    let refused = self.refused.as_ref().map(ToString::to_string);
                    // A refusal is reported once; what follows is read without a pause.
                    if refused.is_none() || refused != before {
                        return Ok(result);
                    }
                }
                // Proof of the slices proves no set that they do not give.
                Some(Update::Alive) if self.refused.is_some() => {}
                Some(Update::Alive) => return Ok(ReadResult::unchanged()),
                Some(Update::Trouble(error)) => return Ok(ReadResult::trouble(error)),
                Some(Update::Expired) => return Ok(ReadResult::resync("the position has expired")),
            }
        }
    }

    /// The set as it is now. Every list is consistent, so that there is nothing stronger.
    async fn now(&mut self, max_entries: usize) -> Result<ReadResult> {
        self.query.validate()?;
        self.is_shared = self.ticket.is_shared();
        if !self.is_shared {
            self.ticket.leave();
            return Ok(match self.slices.list(max_entries).await? {
                true => self.set(self.slices.known()),
                false => ReadResult::resync(EXPIRED),
            });
        }
        self.slices.clear();
        if let Some(shared) = self.ticket.known() {
            // A list of one service costs less than that of the namespace, and proves that.
            match self.slices.look(max_entries).await? {
                None => return Ok(ReadResult::resync(EXPIRED)),
                Some(listed) if is_equal(&listed, &shared) => return Ok(self.set(shared)),
                Some(_) => {}
            }
        }
        let known = self.ticket.listed().await?;
        Ok(self.set(known))
    }

    /// Lists beside a watch of its own, which goes on if the list has what it has reported.
    async fn verify(&mut self, max_entries: usize) -> Result<ReadResult> {
        if self.is_shared || self.ticket.is_shared() || !self.slices.is_watching() {
            return self.now(max_entries).await;
        }
        let known = self.slices.known();
        match self.slices.look(max_entries).await? {
            None => Ok(ReadResult::resync(EXPIRED)),
            Some(listed) if !is_equal(&listed, &known) => {
                self.slices.take(listed);
                Ok(self.set(self.slices.known()))
            }
            Some(_) if !known.is(&self.known) => Ok(self.set(known)),
            Some(_) => Ok(match &self.refused {
                Some(error) => ReadResult::trouble(error.clone()),
                None => ReadResult::unchanged(),
            }),
        }
    }

    /// What the watch in use has reported.
    fn latest(&mut self) -> View {
        if self.is_shared { self.ticket.latest() } else { self.slices.known() }
    }

    fn set(&mut self, known: View) -> ReadResult {
        let (config, query) = (self.client.config(), &self.query);
        // The endpoints that an event of a slice lists no more have left. Those of a slice that is
        // gone may be lost, and so may those that a list lacks: its server may have older data.
        let vanished = self.last.keys().any(|name| !known.slices.contains_key(name));
        let is_doubtful = vanished || !known.follows(&self.known);
        let mut last = std::mem::take(&mut self.last);
        for (name, slice) in &*known.slices {
            let part = match last.remove(name) {
                Some(part) if is_same(&part.slice, slice) => part,
                _ => Part { slice: slice.clone(), mapped: map(slice, query, config.family) },
            };
            self.last.insert(name.clone(), part);
        }
        self.known = known;
        let parts = self.last.values().map(|part| &part.mapped);
        let joined = mapping::join(parts, query, config.family, config.zone.as_deref());
        self.refused = joined.as_ref().err().cloned();
        match joined {
            Ok(entries) if is_doubtful || entries.iter().any(Result::is_err) => {
                ReadResult::set(entries)
            }
            Ok(entries) => ReadResult::set(entries).with_accepted_absences(),
            Err(error) => ReadResult::trouble(error),
        }
    }
}

#[async_trait]
impl Source for KubernetesSource {
    type Item = Instance;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        let (max_entries, is_verifying) = (request.max_entries, request.mode == ReadMode::Verify);
        let read = match request.mode {
            ReadMode::Changed => self.changed(max_entries).await,
            ReadMode::Verify => self.verify(max_entries).await,
            _ => self.now(max_entries).await,
        };
        match read {
            // The watch goes on, and reports the end of the trouble.
            Err(error) if error.is_transient() && (self.is_shared || is_verifying) => {
                Ok(ReadResult::trouble(error))
            }
            read => read,
        }
    }
}

/// Whether a list has the slices that a watch has reported.
fn is_equal(listed: &Listed, known: &View) -> bool {
    versions(&listed.known()).eq(versions(&known.slices))
}

/// The names and versions of the slices.
fn versions(known: &Known) -> impl Iterator<Item = (&str, Option<&str>)> {
    known.iter().map(move |(name, slice)| {
        let slice = slice.as_ref().ok();
        (name.as_str(), slice.map(|slice| slice.metadata.resource_version.as_str()))
    })
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

const EXPIRED: &str = "expired while listing";
