//! A list of EndpointSlices, kept up by a watch.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tower_sd_core::{Error, ErrorKind, Result};

use super::{
    credentials::Token,
    groups::{Groups, View},
    lines::{Ended, Lines},
    object::{EndpointSlice, Event, List, Object, SERVICE_NAME},
    wire::{Failure, Wire},
};
use crate::{
    BACKEND,
    error::{self, FOLLOW, Status},
};

/// Whether a service is followed.
pub(super) type Wanted = Box<dyn Fn(&str) -> bool + Send + Sync>;

type Slice = Result<Arc<EndpointSlice>>;

/// The slices of a selector: a list, and a watch from there.
pub(crate) struct Slices {
    wire: Arc<Wire>,
    /// Of labels.
    selector: String,
    /// `None`: all slices are of one group.
    wanted: Option<Wanted>,
    known: Groups,
    /// The last list.
    list: Arc<()>,
    /// Events were applied, and not reported yet.
    has_changed: bool,
    /// The position of the watch; opaque.
    version: Option<String>,
    watch: Option<Lines>,
    /// What the watch was requested with.
    token: Token,
    /// When the watch began.
    began_at: Instant,
    /// The watch has reported something.
    has_spoken: bool,
    /// Watches in a row that ended soon and without a report.
    n_short: u32,
    /// The list is due before the next watch: what happened meanwhile is uncertain.
    doubted: bool,
}

/// The next event.
#[derive(Debug)]
pub(crate) enum Update {
    /// The slices may have changed.
    Changed,
    /// Proof of life: they have not.
    Alive,
    /// They may be outdated; the position is kept.
    Trouble(Error),
    /// The position is lost: list anew.
    Expired,
}

/// What one line of a watch means.
enum Line {
    Changed,
    Bookmark,
    Expired,
}

impl Slices {
    /// The slices of one service.
    pub(super) fn of_service(wire: Arc<Wire>, service: &str) -> Self {
        Self::new(wire, format!("{SERVICE_NAME}={service}"), None)
    }

    /// The slices of all services in the namespace that are `wanted`; the others are dropped.
    pub(super) fn of_namespace(wire: Arc<Wire>, wanted: Wanted) -> Self {
        Self::new(wire, SERVICE_NAME.to_owned(), Some(wanted))
    }

    fn new(wire: Arc<Wire>, selector: String, wanted: Option<Wanted>) -> Self {
        Self {
            wire,
            selector,
            wanted,
            known: Groups::default(),
            list: Arc::default(),
            has_changed: false,
            version: None,
            watch: None,
            token: Token::default(),
            began_at: Instant::now(),
            has_spoken: false,
            n_short: 0,
            doubted: false,
        }
    }

    /// The slices of the only service.
    pub(crate) fn known(&self) -> View {
        self.of(ONLY)
    }

    /// The slices of a service in the namespace.
    pub(super) fn of(&self, service: &str) -> View {
        View { slices: self.known.of(service), list: Arc::clone(&self.list) }
    }

    /// The services whose slices have changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<String> {
        self.known.take_changed()
    }

    /// Ends the watch, and drops what is known.
    pub(crate) fn clear(&mut self) {
        (self.known, self.version, self.watch) = (Groups::default(), None, None);
        self.has_changed = false;
    }

    /// Reads all slices as they are now, page by page; ends the watch.
    ///
    /// A list without a version is a consistent read. `false`: the position was lost between two
    /// pages.
    ///
    /// # Errors
    ///
    /// The server refuses, or cannot be reached; there are more than `max_entries` endpoints.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was known stays known.
    pub(crate) async fn list(&mut self, max_entries: usize) -> Result<bool> {
        self.watch = None;
        let (mut known, mut next, mut limit) = (Groups::default(), None::<String>, PAGE);
        let mut n_endpoints = 0usize;
        loop {
            let mut query = self.selection();
            query.push(("limit", limit.to_string()));
            query.extend(next.iter().map(|next| ("continue", next.clone())));
            let max_body = match limit {
                1 => self.max_line(),
                _ => self.wire.config.max_object.saturating_mul(limit).min(MAX_PAGE),
            };
            let page: List = match self.wire.list(&query, max_body).await {
                Ok(page) => page,
                Err(Failure::Expired) => return Ok(false),
                // Slices may be large: fewer of them fit.
                Err(Failure::TooLong(_)) if limit > 1 => {
                    limit /= 4;
                    limit = limit.max(1);
                    continue;
                }
                Err(Failure::TooLong(error) | Failure::Other(error)) => return Err(error),
            };
            for item in page.items.unwrap_or_default() {
                let object: Object = parsed(item.get())?;
                n_endpoints += insert(&mut known, &object, self.read(&object, item.get()));
            }
            if n_endpoints > max_entries {
                return Err(error::garbled(format!("more than {max_entries} endpoints")));
            }
            next = page.metadata.next.filter(|next| !next.is_empty());
            if next.is_none() {
                known.note_changed(&self.known);
                (self.known, self.list) = (known, Arc::new(()));
                self.version = Some(page.metadata.resource_version);
                (self.doubted, self.has_changed) = (false, false);
                return Ok(true);
            }
        }
    }

    /// Waits for the next event, by a watch that is renewed when it ends.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self, max_entries: usize) -> Update {
        loop {
            let Some(watch) = &mut self.watch else {
                match self.renew(max_entries).await {
                    Ok(None) => continue,
                    Ok(Some(update)) => return update,
                    Err(error) => {
                        self.doubted = true;
                        return Update::Trouble(error);
                    }
                }
            };
            // Events that have arrived together are one change.
            let line = match self.has_changed {
                false => watch.next().await,
                true => match watch.ready().await {
                    Some(line) => line,
                    None => return self.changed(),
                },
            };
            match line.map(|line| self.apply(&line)) {
                Ok(Ok(Line::Changed)) => self.has_changed = true,
                Ok(Ok(Line::Bookmark)) if self.has_changed => {}
                Ok(Ok(Line::Bookmark)) => return Update::Alive,
                Ok(Ok(Line::Expired)) => {
                    self.watch = None;
                    return Update::Expired;
                }
                Ok(Err(error)) => {
                    (self.watch, self.doubted) = (None, true);
                    return Update::Trouble(error);
                }
                Err(ended) => match self.ended(ended) {
                    // What is in doubt is listed next.
                    _ if self.has_changed => return self.changed(),
                    Some(error) => return Update::Trouble(error),
                    None => {}
                },
            }
        }
    }

    fn changed(&mut self) -> Update {
        self.has_changed = false;
        Update::Changed
    }

    /// Starts a watch at the position, or lists where that is in doubt.
    async fn renew(&mut self, max_entries: usize) -> Result<Option<Update>> {
        if self.doubted {
            let listed = self.list(max_entries).await?;
            return Ok(Some(if listed { Update::Changed } else { Update::Expired }));
        }
        let Some(version) = self.version.clone() else {
            return Ok(Some(Update::Expired));
        };
        let last = self.began_at;
        if self.n_short > 0 {
            sleep_until(last + MIN_LIFE).await;
        }
        let mut query = self.selection();
        query.extend([
            ("watch", "true".to_owned()),
            ("allowWatchBookmarks", "true".to_owned()),
            ("resourceVersion", version),
            // As client-go: a server that is restarted is not met by all watches together.
            ("timeoutSeconds", fastrand::u32(300..600).to_string()),
        ]);
        match self.wire.watch(&query).await {
            Ok((body, token)) => {
                self.watch = Some(Lines::new(body, self.max_line()));
                self.token = token;
                (self.began_at, self.has_spoken) = (Instant::now(), false);
                Ok(None)
            }
            Err(Failure::Expired) => Ok(Some(Update::Expired)),
            Err(Failure::TooLong(error) | Failure::Other(error)) => Err(error),
        }
    }

    /// Judges the end of a watch; without an error another one follows.
    ///
    /// One that broke off may have been that of another server: a store restored from a backup
    /// accepts a position from the future, and reports nothing until it has caught up.
    fn ended(&mut self, ended: Ended) -> Option<Error> {
        self.watch = None;
        match ended {
            Ended::TooLong => {
                self.doubted = true;
                let message = format!("an event is longer than {} bytes", self.max_line());
                Some(error::garbled(message))
            }
            Ended::Closed(cause) => {
                let is_short = self.began_at.elapsed() < MIN_LIFE && !self.has_spoken;
                self.n_short = if is_short { self.n_short.saturating_add(1) } else { 0 };
                self.doubted |= cause.is_some();
                tracing::debug!(backend = BACKEND, ?cause, n_short = self.n_short, "watch ended");
                if self.n_short < MAX_SHORT {
                    return None;
                }
                self.doubted = true;
                let message =
                    format!("{} watches in a row ended within {MIN_LIFE:?}", self.n_short);
                let error =
                    Error::new(ErrorKind::Unavailable, BACKEND, FOLLOW).with_message(message);
                Some(match cause {
                    Some(cause) => error.with_source(cause),
                    None => error,
                })
            }
        }
    }

    fn apply(&mut self, line: &[u8]) -> Result<Line> {
        self.has_spoken = true;
        let event: Event = serde_json::from_slice(line).map_err(|cause| {
            error::garbled("an event is not as an API server writes it").with_source(cause)
        })?;
        let text = event.object.get();
        if event.kind == "ERROR" {
            let status: Status = parsed(text)?;
            return match self.wire.ended(status, &self.token) {
                Failure::Expired => Ok(Line::Expired),
                Failure::TooLong(error) | Failure::Other(error) => Err(error),
            };
        }
        let object: Object = parsed(text)?;
        self.version = Some(object.metadata.resource_version.clone());
        let changed = match event.kind.as_str() {
            "DELETED" => self.known.remove(&object.metadata.name),
            "ADDED" | "MODIFIED" => {
                let read = self.read(&object, text);
                insert(&mut self.known, &object, read);
                true
            }
            // A bookmark moves the position only.
            _ => false,
        };
        Ok(if changed { Line::Changed } else { Line::Bookmark })
    }

    /// The slice of an object, and its group; `None` if its service is not wanted.
    fn read<'a>(&self, object: &'a Object, text: &str) -> Option<(&'a str, Slice)> {
        let Object { metadata } = object;
        let group = match (&self.wanted, metadata.labels.get(SERVICE_NAME)) {
            (None, _) => ONLY,
            (Some(wanted), Some(service)) if wanted(service) => service,
            (Some(_), _) => return None,
        };
        let max = self.wire.config.max_object;
        let slice = match text.len() > max {
            true => {
                let name = &metadata.name;
                let message = format!("slice {name:?} is longer than max_object = {max} bytes");
                Err(error::garbled(message))
            }
            false => parsed::<EndpointSlice>(text).map(Arc::new),
        };
        Some((group, slice.map_err(Error::permanent)))
    }

    /// Of an object in its envelope: one that is too long is skipped, and not all that is read.
    fn max_line(&self) -> usize {
        self.wire.config.max_object.max(MAX_PAGE).saturating_add(ENVELOPE)
    }

    fn selection(&self) -> Vec<(&'static str, String)> {
        vec![("labelSelector", self.selector.clone())]
    }
}

/// Adds a slice, or drops one that is not wanted; returns its size.
fn insert(known: &mut Groups, object: &Object, read: Option<(&str, Slice)>) -> usize {
    let Some((group, slice)) = read else {
        known.remove(&object.metadata.name);
        return 0;
    };
    let size = slice.as_ref().map_or(0, |slice| slice.endpoints.len());
    known.insert(group, &object.metadata.name, slice);
    size
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|cause| {
        error::garbled("an object is not as an API server writes it").with_source(cause)
    })
}

/// The group of slices that all are of one service.
const ONLY: &str = "";
/// Slices of a page: ordinary ones have 100 endpoints, some 40 KB.
const PAGE: usize = 256;
/// A page above it is read again in smaller ones; one object may have as much.
const MAX_PAGE: usize = 16 << 20;
/// Around the objects of a list, and around that of an event.
const ENVELOPE: usize = 16 << 10;
/// Of a watch without a report: a server that closes it sooner gets the next one after this.
const MIN_LIFE: Duration = Duration::from_secs(1);
/// So many short watches in a row are a server, or a proxy, that has none.
const MAX_SHORT: u32 = 3;
