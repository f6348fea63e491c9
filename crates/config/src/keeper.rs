//! What becomes of what is read: the loop's sink.

use std::future::pending;

use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::Instant};
use tower_sd_core::{Error, ErrorKind, Freshness, KeyValue, Sink};

use crate::{Latest, Options, WhenDeleted, config::BACKEND, document};

/// The single writer of one configuration's [`Latest`].
pub(crate) struct Keeper<T> {
    options: Options<T>,
    latest: watch::Sender<Latest<T>>,
    /// What was read last and judged, good or bad.
    judged: Vec<KeyValue>,
    absence: Absence,
    /// An entry of the last read could not even be read as a key.
    malformed: Option<Error>,
    /// What was judged last is not what was read last.
    outdated: bool,
}

/// Whether what was there is gone: believed when a second read, the strongest there is, says so too. A token that has lost
/// a right can look like that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Absence {
    /// Nothing is missing.
    No,
    /// A read has not had it.
    Suspected,
    /// A confirming read was asked for.
    Asked,
}

impl<T> Keeper<T> {
    pub(crate) fn new(options: Options<T>) -> (Self, watch::Receiver<Latest<T>>) {
        let (latest, receiver) = watch::channel(Latest {
            value: options.default.clone(),
            revision: None,
            rejected: None,
            absent: false,
            freshness: Freshness::NeverSynced { error: None },
        });
        let (judged, absence) = (Vec::new(), Absence::No);
        (Self { options, latest, judged, absence, malformed: None, outdated: false }, receiver)
    }

    /// There is nothing, and it is believed.
    fn absent(&mut self) {
        let Options { default, when_deleted, .. } = &self.options;
        let key = self.judged.first().map(|entry| entry.key().to_owned());
        self.judged.clear();
        self.latest.send_if_modified(|latest| {
            let changed = !latest.absent || !latest.freshness.is_fresh();
            if let Some(key) = key {
                tracing::warn!(backend = BACKEND, key, policy = ?when_deleted, "configuration deleted");
                match when_deleted {
                    WhenDeleted::KeepLast => {}
                    WhenDeleted::Default => latest.value.clone_from(default),
                    WhenDeleted::Nothing => latest.value = None,
                }
                if *when_deleted != WhenDeleted::KeepLast {
                    latest.revision = None;
                }
            }
            latest.absent = true;
            latest.rejected = None;
            latest.freshness = Freshness::Fresh;
            changed
        });
    }

    fn reject(&mut self, error: Error) {
        tracing::warn!(backend = BACKEND, %error, "configuration rejected, the last good one stays");
        self.latest.send_modify(|latest| {
            latest.rejected = Some(error);
            latest.absent = false;
            latest.freshness = Freshness::Fresh;
        });
    }

    /// Nothing but time, and perhaps revisions, has passed.
    fn unchanged(&mut self, entries: Vec<KeyValue>) {
        self.latest.send_if_modified(|latest| {
            if latest.rejected.is_none() {
                latest.revision = revision(&entries);
            }
            let changed = !latest.freshness.is_fresh();
            latest.freshness = Freshness::Fresh;
            changed
        });
        self.judged = entries;
    }
}

impl<T: DeserializeOwned> Keeper<T> {
    fn judge(&mut self, entries: Vec<KeyValue>) {
        self.outdated = false;
        match document::decode::<T>(self.options.format, &entries) {
            Ok(value) => {
                let revision = revision(&entries);
                let key = entries.first().map(KeyValue::key);
                tracing::info!(backend = BACKEND, key, revision, "configuration changed");
                let freshness = Freshness::Fresh;
                let (value, absent) = (Some(value.into()), false);
                self.latest.send_replace(Latest {
                    value,
                    revision,
                    rejected: None,
                    absent,
                    freshness,
                });
            }
            Err(error) => self.reject(error),
        }
        self.judged = entries;
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> Sink<KeyValue> for Keeper<T> {
    fn set(&mut self, mut entries: Vec<KeyValue>) {
        if let Some(error) = self.malformed.take() {
            // What is left might be good by itself, and is not what somebody wrote.
            self.outdated = true;
            return self.reject(error);
        }
        // A folder as Consul's web page makes it.
        entries.retain(|entry| !(entry.name().ends_with('/') && entry.value().is_empty()));
        entries.sort_by(|a, b| a.key().cmp(b.key()));
        if !entries.is_empty() {
            self.absence = Absence::No;
            return match same_values(&self.judged, &entries) && !self.outdated {
                true => self.unchanged(entries),
                false => self.judge(entries),
            };
        }
        if self.absence == Absence::No && !self.judged.is_empty() {
            self.absence = Absence::Suspected;
            return;
        }
        self.absence = Absence::No;
        self.absent();
    }

    fn failed(&mut self, error: Error) {
        self.latest.send_if_modified(|latest| {
            let was = (latest.freshness.is_synced(), latest.freshness.error().is_some());
            if latest.freshness.is_fresh() {
                tracing::warn!(backend = BACKEND, %error, "configuration stale");
            }
            latest.freshness = troubled(&latest.freshness, error);
            // A later error of the same trouble is no news.
            was != (latest.freshness.is_synced(), true)
        });
    }

    fn malformed(&mut self, errors: &[Error]) {
        self.malformed = errors.first().cloned();
    }

    fn resync(&mut self, reason: &'static str) {
        tracing::debug!(backend = BACKEND, reason, "resync");
    }

    async fn due(&mut self) {
        if self.absence != Absence::Suspected {
            pending::<()>().await;
        }
        self.absence = Absence::Asked;
    }
}

impl<T> Drop for Keeper<T> {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Closed, BACKEND, "follow");
        self.latest.send_modify(|latest| latest.freshness = troubled(&latest.freshness, error));
    }
}

fn troubled(freshness: &Freshness, error: Error) -> Freshness {
    match freshness {
        Freshness::NeverSynced { .. } => Freshness::NeverSynced { error: Some(error) },
        Freshness::Stale { since, .. } => Freshness::Stale { since: *since, error },
        _ => Freshness::Stale { since: Instant::now(), error },
    }
}

fn revision(entries: &[KeyValue]) -> Option<u64> {
    entries.iter().map(KeyValue::revision).max()
}

fn same_values(a: &[KeyValue], b: &[KeyValue]) -> bool {
    let same = |(a, b): (&KeyValue, &KeyValue)| a.key() == b.key() && a.value() == b.value();
    a.len() == b.len() && a.iter().zip(b).all(same)
}
