use std::{fmt, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tower_sd_core::{
    BoxError, Error, ErrorKind, Freshness, KeyValue, Result, Source, TaskGroup, follow,
};

use crate::{BACKEND, ConfigSnapshot, WatchOptions, sink::ConfigSink};

/// A typed value that follows a key, or all keys below a prefix, of a registry.
///
/// A key holds one document. Below a prefix every key is a field: `app/db/port` is the field `port`
/// of the field `db`. What cannot be read as a `T` is reported by [`ConfigSnapshot::rejected`] and
/// in the log, and does not become the value; checks beyond the type belong to `T`
/// (`#[serde(try_from = "…")]`).
///
/// `Clone` is cheap, and every clone waits for changes by itself; a slow one skips intermediate
/// values.
///
/// # Drop
///
/// With the last clone the loop behind it ends, and its I/O.
pub struct WatchedConfig<T> {
    latest: watch::Receiver<ConfigSnapshot<T>>,
    nudge: Arc<Notify>,
    tasks: TaskGroup,
}

impl<T: DeserializeOwned + Send + Sync + 'static> WatchedConfig<T> {
    /// Starts to follow the keys of `source`, such as that of `Consul::key_value`.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: it starts the loop's task.
    pub fn new(source: impl Source<Item = KeyValue>, options: WatchOptions<T>) -> Self {
        let (nudge, tasks) = (Arc::new(Notify::new()), TaskGroup::new());
        let config = options.follow.clone();
        let (sink, latest) = ConfigSink::new(options);
        let nudged = Arc::clone(&nudge);
        tasks.spawn(|stop| follow("config", source, sink, config, nudged, stop));
        Self { latest, nudge, tasks }
    }
}

impl<T: Send + Sync> WatchedConfig<T> {
    /// The value now. None: there is none yet and no default, or none any more.
    pub fn value(&self) -> Option<Arc<T>> {
        self.latest.borrow().value.clone()
    }

    /// Returns the value now, and whether it is current.
    pub fn latest(&self) -> ConfigSnapshot<T> {
        self.latest.borrow().clone()
    }

    /// Waits for a change that this clone has not returned, and returns the latest.
    ///
    /// A new value is a change, and so is a value that was rejected, and the registry's coming and
    /// going.
    ///
    /// # Errors
    ///
    /// `Closed`: the loop has ended, no value will come any more.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no change is lost.
    pub async fn changed(&mut self) -> Result<ConfigSnapshot<T>> {
        match self.latest.changed().await {
            Ok(()) => Ok(self.latest.borrow_and_update().clone()),
            Err(closed) => Err(closed_error().with_source(closed)),
        }
    }

    /// Waits for the first answer of the registry, at most `bound`.
    ///
    /// It is a value, one that was rejected, or that there is none.
    ///
    /// # Errors
    ///
    /// `Timeout`, with the last failure as its source; `Closed` when the loop has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ready(&mut self, bound: Duration) -> Result<ConfigSnapshot<T>> {
        let answered = self.latest.wait_for(|latest| latest.freshness.is_synced());
        let cause = match timeout(bound, answered).await {
            Ok(Ok(latest)) => return Ok(latest.clone()),
            Ok(Err(closed)) => return Err(closed_error().with_source(closed)),
            Err(elapsed) => BoxError::from(elapsed),
        };
        let cause = match self.latest().freshness {
            Freshness::NeverSynced { error: Some(error) } => error.into(),
            _ => cause,
        };
        let message = format!("the registry has not answered within {bound:?}");
        Err(Error::new(ErrorKind::Timeout, BACKEND, "ready")
            .with_message(message)
            .with_source(cause))
    }

    /// Requests a new read. Never blocks; the loop limits the rate.
    pub fn refresh(&self) {
        self.nudge.notify_one();
    }

    /// Ends the loop and its I/O, and waits for that.
    ///
    /// All clones keep the last value, stale with a `Closed` error.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the loop still ends; only the waiting is lost.
    pub async fn close(&self) {
        self.tasks.close().await;
    }
}

impl<T> Clone for WatchedConfig<T> {
    fn clone(&self) -> Self {
        Self {
            latest: self.latest.clone(),
            nudge: Arc::clone(&self.nudge),
            tasks: self.tasks.clone(),
        }
    }
}

impl<T: Send + Sync> fmt::Debug for WatchedConfig<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("latest", &self.latest()).finish_non_exhaustive()
    }
}

fn closed_error() -> Error {
    Error::new(ErrorKind::Closed, BACKEND, "follow")
}

#[cfg(test)]
mod tests;
