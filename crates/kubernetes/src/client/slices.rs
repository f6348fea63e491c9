//! A list of EndpointSlices, kept up by a watch.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tower_sd_core::{Error, ErrorKind, Result};

use super::{
    credentials::Token,
    groups::{Groups, View},
    lines::{Ended, Lines},
    object::{Event, Object},
    selection::{Listed, ONLY, Selection, Wanted, parsed},
    wire::{Failure, Wire},
};
use crate::{
    BACKEND,
    error::{self, FOLLOW, Status},
};

/// The slices of a selector: a list, and a watch from there.
pub(crate) struct Slices {
    selection: Selection,
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
    /// When the watch, or the last one, began.
    began_at: Option<Instant>,
    /// The watch has reported something.
    has_spoken: bool,
    /// Watches in a row that ended soon and without a report.
    n_short: u32,
    /// The list is due before the next watch: what happened meanwhile is uncertain.
    doubted: bool,
    /// The earliest time of that list.
    list_at: Instant,
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
        Self::new(Selection::of_service(wire, service))
    }

    /// The slices of all services in the namespace that are `wanted`; the others are dropped.
    pub(super) fn of_namespace(wire: Arc<Wire>, wanted: Wanted) -> Self {
        Self::new(Selection::of_namespace(wire, wanted))
    }

    fn new(selection: Selection) -> Self {
        Self {
            selection,
            known: Groups::default(),
            list: Arc::default(),
            has_changed: false,
            version: None,
            watch: None,
            token: Token::default(),
            began_at: None,
            has_spoken: false,
            n_short: 0,
            doubted: false,
            list_at: Instant::now(),
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
        (self.has_changed, self.began_at) = (false, None);
    }

    /// Whether events of the slices arrive.
    pub(crate) fn is_watching(&self) -> bool {
        self.watch.is_some()
    }

    /// Reads all slices as they are now, and watches from there. `false`: as [`look`](Self::look)'s
    /// `None`.
    ///
    /// # Errors
    ///
    /// As [`look`](Self::look).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was known stays known.
    pub(crate) async fn list(&mut self, max_entries: usize) -> Result<bool> {
        self.watch = None;
        let listed = self.look(max_entries).await?;
        Ok(listed.map(|listed| self.take(listed)).is_some())
    }

    /// Takes a list for what is known, and ends the watch.
    pub(crate) fn take(&mut self, listed: Listed) {
        let Listed { mut known, version } = listed;
        known.note_changed(&self.known);
        (self.known, self.list) = (known, Arc::new(()));
        (self.version, self.watch) = (Some(version), None);
        (self.doubted, self.has_changed) = (false, false);
    }

    /// Reads all slices as they are now, beside the watch; see [`Selection::list`].
    ///
    /// # Errors
    ///
    /// As [`Selection::list`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn look(&self, max_entries: usize) -> Result<Option<Listed>> {
        self.selection.list(max_entries).await
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
            sleep_until(self.list_at).await;
            let listed = self.list(max_entries).await?;
            return Ok(Some(if listed { Update::Changed } else { Update::Expired }));
        }
        let Some(version) = self.version.clone() else {
            return Ok(Some(Update::Expired));
        };
        if let Some(last) = self.began_at {
            sleep_until(last + MIN_LIFE).await;
        }
        let mut query = self.selection.query();
        query.extend([
            ("watch", "true".to_owned()),
            ("allowWatchBookmarks", "true".to_owned()),
            ("resourceVersion", version),
            // As client-go: a server that is restarted is not met by all watches together.
            ("timeoutSeconds", fastrand::u32(300..600).to_string()),
        ]);
        match self.selection.wire.watch(&query).await {
            Ok((body, token)) => {
                self.watch = Some(Lines::new(body, self.selection.max_line()));
                self.token = token;
                (self.began_at, self.has_spoken) = (Some(Instant::now()), false);
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
                let message =
                    format!("an event is longer than {} bytes", self.selection.max_line());
                Some(error::garbled(message))
            }
            Ended::Closed(cause) => {
                let life = self.began_at.map(|began_at| began_at.elapsed());
                let is_short = life.is_some_and(|life| life < MIN_LIFE) && !self.has_spoken;
                self.n_short = if is_short { self.n_short.saturating_add(1) } else { 0 };
                if cause.is_some() {
                    // A server that is restarted breaks the watches of all its clients together.
                    self.list_at = Instant::now() + MIN_LIFE.mul_f64(fastrand::f64());
                    self.doubted = true;
                }
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
            return match self.selection.wire.ended(status, &self.token) {
                Failure::Expired => Ok(Line::Expired),
                Failure::TooLong(error) | Failure::Other(error) => Err(error),
            };
        }
        let object: Object = parsed(text)?;
        self.version = Some(object.metadata.resource_version.clone());
        let changed = match event.kind.as_str() {
            "DELETED" => self.known.remove(&object.metadata.name),
            "ADDED" | "MODIFIED" => {
                self.selection.insert(&mut self.known, &object, text);
                true
            }
            // A bookmark moves the position only.
            _ => false,
        };
        Ok(if changed { Line::Changed } else { Line::Bookmark })
    }
}

/// Of a watch: a server that closes it sooner gets the next one after this.
const MIN_LIFE: Duration = Duration::from_secs(1);
/// So many short watches in a row are a server, or a proxy, that has none.
const MAX_SHORT: u32 = 3;
