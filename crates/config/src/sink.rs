//! The loop's sink: decodes the keys and publishes the value.

use std::{future::pending, mem};

use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tower_sd_core::{Entries, Error, ErrorKind, Freshness, KeyValue, ReadMode, Sink};

use crate::{BACKEND, ConfigSnapshot, OnDelete, WatchOptions, document};

/// The single writer of one configuration's [`ConfigSnapshot`].
pub(crate) struct ConfigSink<T> {
    options: WatchOptions<T>,
    latest: watch::Sender<ConfigSnapshot<T>>,
    /// The keys that were decoded last, well or not.
    judged: Vec<KeyValue>,
    absence: Absence,
    /// The last read differs from `judged`.
    outdated: bool,
}

/// Whether the keys are deleted: accepted from a confirming read only. A token that has lost a
/// right can look like that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Absence {
    No,
    /// A read without the keys.
    Suspected,
    /// A confirming read was requested.
    Requested,
}

impl<T> ConfigSink<T> {
    pub(crate) fn new(options: WatchOptions<T>) -> (Self, watch::Receiver<ConfigSnapshot<T>>) {
        let (latest, receiver) = watch::channel(ConfigSnapshot {
            value: options.default.clone(),
            revision: None,
            rejected: None,
            absent: false,
            freshness: Freshness::NeverSynced { error: None },
        });
        let (judged, absence) = (Vec::new(), Absence::No);
        (Self { options, latest, judged, absence, outdated: false }, receiver)
    }

    /// There is nothing, and that is confirmed.
    fn absent(&mut self) {
        let WatchOptions { default, when_deleted, .. } = &self.options;
        let key = self.judged.first().map(|entry| entry.key().to_owned());
        self.judged.clear();
        self.latest.send_if_modified(|latest| {
            let changed = !latest.absent || !latest.freshness.is_fresh();
            if let Some(key) = key {
                tracing::warn!(backend = BACKEND, key, policy = ?when_deleted, "configuration deleted");
                match when_deleted {
                    OnDelete::KeepLast => {}
                    OnDelete::Default => latest.value.clone_from(default),
                    OnDelete::Clear => latest.value = None,
                }
                if *when_deleted != OnDelete::KeepLast {
                    latest.revision = None;
                }
            }
            latest.absent = true;
            latest.rejected = None;
            latest.freshness = Freshness::Fresh;
            changed
        });
    }

    /// Keeps the last good value; one that stays bad `is_new` once.
    fn reject(&mut self, error: Error, is_new: bool) {
        self.latest.send_if_modified(|latest| {
            let text = |error: &Error| error.chain().to_string();
            let is_news = is_new || latest.rejected.as_ref().map(text) != Some(text(&error));
            if is_news {
                tracing::warn!(backend = BACKEND, %error, "configuration rejected, the last good one stays");
            }
            latest.rejected = Some(error);
            let was_absent = mem::take(&mut latest.absent);
            fresh(latest) || is_news || was_absent
        });
    }

    /// The registry has no keys: a deletion once a confirming read has shown that.
    fn nothing(&mut self, mode: ReadMode) {
        if mode == ReadMode::Confirm || self.judged.is_empty() {
            self.absence = Absence::No;
            self.absent();
        } else if self.absence == Absence::No {
            self.absence = Absence::Suspected;
        }
    }

    /// The same values, perhaps of later revisions.
    fn same(&mut self, entries: Vec<KeyValue>) {
        self.latest.send_if_modified(|latest| {
            if latest.rejected.is_none() {
                latest.revision = revision(&entries);
            }
            fresh(latest)
        });
        self.judged = entries;
    }
}

impl<T: DeserializeOwned> ConfigSink<T> {
    fn judge(&mut self, entries: Vec<KeyValue>) {
        self.outdated = false;
        match document::decode::<T>(self.options.format, &entries) {
            Ok(value) => {
                let revision = revision(&entries);
                let key = entries.first().map(KeyValue::key);
                tracing::info!(backend = BACKEND, key, revision, "configuration changed");
                let freshness = Freshness::Fresh;
                let (value, absent) = (Some(value.into()), false);
                self.latest.send_replace(ConfigSnapshot {
                    value,
                    revision,
                    rejected: None,
                    absent,
                    freshness,
                });
            }
            Err(error) => self.reject(error, true),
        }
        self.judged = entries;
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> Sink<KeyValue> for ConfigSink<T> {
    fn set(&mut self, entries: Entries<KeyValue>) {
        let (mut keys, mode) = (entries.items, entries.mode);
        if let Some(error) = entries.errors.into_iter().next() {
            // The rest might be valid by itself, and is not the value that was written.
            (self.outdated, self.absence) = (true, Absence::No);
            return self.reject(error, false);
        }
        // A folder as Consul's web page makes it.
        keys.retain(|entry| !(entry.name().ends_with('/') && entry.value().is_empty()));
        keys.sort_by(|a, b| a.key().cmp(b.key()));
        if keys.is_empty() {
            return self.nothing(mode);
        }
        self.absence = Absence::No;
        match same_values(&self.judged, &keys) && !self.outdated {
            true => self.same(keys),
            false => self.judge(keys),
        }
    }

    fn unchanged(&mut self, mode: ReadMode) {
        if self.absence != Absence::No {
            return self.nothing(mode);
        }
        self.latest.send_if_modified(fresh);
    }

    fn failed(&mut self, error: Error) {
        self.latest.send_if_modified(|latest| {
            let was = (latest.freshness.is_synced(), latest.freshness.error().is_some());
            if latest.freshness.is_fresh() {
                tracing::warn!(backend = BACKEND, %error, "configuration stale");
            }
            latest.freshness = latest.freshness.after(error);
            // A later error of the same trouble is no news.
            was != (latest.freshness.is_synced(), true)
        });
    }

    fn resync(&mut self, reason: &'static str) {
        tracing::debug!(backend = BACKEND, reason, "resync");
    }

    async fn due(&mut self) {
        if self.absence != Absence::Suspected {
            pending::<()>().await;
        }
        self.absence = Absence::Requested;
    }
}

impl<T> Drop for ConfigSink<T> {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Closed, BACKEND, "follow");
        self.latest.send_modify(|latest| latest.freshness = latest.freshness.after(error));
    }
}

fn fresh<T>(latest: &mut ConfigSnapshot<T>) -> bool {
    let changed = !latest.freshness.is_fresh();
    latest.freshness = Freshness::Fresh;
    changed
}

fn revision(entries: &[KeyValue]) -> Option<u64> {
    entries.iter().map(KeyValue::revision).max()
}

fn same_values(a: &[KeyValue], b: &[KeyValue]) -> bool {
    let same = |(a, b): (&KeyValue, &KeyValue)| a.key() == b.key() && a.value() == b.value();
    a.len() == b.len() && a.iter().zip(b).all(same)
}
