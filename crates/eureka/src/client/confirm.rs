//! Confirming reads: from every server, and shared by many followers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use futures_util::future::join_all;
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};
use tower_sd_core::{Error, Result};

use super::{
    http::Call,
    registry::{self, Registry},
    reply::InstanceInfo,
    wire::Wire,
};
use crate::{Lookup, error::FOLLOW};

/// Bounds the confirming reads of a client.
///
/// A server that was wiped makes each follower confirm its loss in the same moment. The first ones
/// read their applications; the others share reads of all applications.
#[derive(Debug)]
pub(super) struct Confirming {
    wire: Arc<Wire>,
    alone: Semaphore,
    /// The followers that share reads now.
    n_sharing: AtomicUsize,
    shared: Mutex<Option<Shared>>,
}

/// The registry as each server has it.
#[derive(Debug)]
struct Shared {
    began: Instant,
    answers: Vec<Answered<Registry>>,
}

/// What a server, of that index, has answered.
type Answered<T> = (usize, Result<T>);
type Entries = Vec<Arc<InstanceInfo>>;

impl Confirming {
    pub(super) fn new(wire: Arc<Wire>) -> Self {
        let alone = Semaphore::new(MAX_ALONE);
        Self { wire, alone, n_sharing: AtomicUsize::new(0), shared: Mutex::new(None) }
    }

    /// Reads the entries of `name` from every server, by `alone` if that has a turn, and combines
    /// the answers: the youngest state of each entry wins. The server with the most entries is used
    /// from then on.
    ///
    /// # Errors
    ///
    /// No server has answered; or one has not, the others have nothing, and that does not count yet
    /// (`accepts_absence`).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn read<F: Future<Output = Result<Entries>>>(
        &self,
        lookup: Lookup,
        name: &str,
        accepts_absence: bool,
        alone: impl Fn(usize) -> F,
    ) -> Result<Entries> {
        let turn = match lookup {
            Lookup::App => self.alone.try_acquire().ok(),
            Lookup::Vip | Lookup::SecureVip => self.alone.acquire().await.ok(),
        };
        let answers = match turn {
            Some(_turn) => self.all(alone).await,
            None => self.shared(name).await,
        };
        let (mut all, mut most, mut failure) = (BTreeMap::new(), None, None);
        for (index, entries) in answers {
            match entries {
                Ok(entries) => {
                    if most.is_none_or(|(n, _)| n < entries.len()) {
                        most = Some((entries.len(), index));
                    }
                    for entry in entries {
                        add_younger(&mut all, entry);
                    }
                }
                Err(error) if failure.as_ref().is_some_and(Error::is_transient) => drop(error),
                Err(error) => failure = Some(error),
            }
        }
        match (most, failure) {
            (_, Some(error)) if all.is_empty() && error.is_transient() && !accepts_absence => {
                return Err(error);
            }
            (Some((_, index)), _) => self.wire.servers.prefer(index),
            (None, Some(error)) => return Err(error),
            (None, None) => {}
        }
        Ok(all.into_values().collect())
    }

    /// The entries of an application by a read of all of them which began after this call.
    async fn shared(&self, name: &str) -> Vec<Answered<Entries>> {
        let called_at = Instant::now();
        let _one = Sharing::new(&self.n_sharing);
        let mut shared = self.shared.lock().await;
        let known = shared.take().filter(|shared| called_at < shared.began);
        let known = match known {
            Some(known) => known,
            None => {
                let servers = &self.wire.servers;
                let began = Instant::now();
                let read = |index| async move {
                    let answer = servers.send_to(index, &Call::get(FOLLOW, &["apps"])).await?;
                    registry::read(&answer)
                };
                Shared { began, answers: self.all(read).await }
            }
        };
        let of_app = |answer: &Result<Registry>| match answer {
            Ok(registry) => Ok(registry.entries(name).values().cloned().collect()),
            Err(error) => Err(error.clone()),
        };
        let answers = known.answers.iter().map(|(index, answer)| (*index, of_app(answer)));
        let answers = answers.collect();
        *shared = Some(known).filter(|_| self.n_sharing.load(Relaxed) > 1);
        answers
    }

    /// Reads from all servers, concurrently: with several that hang, one after the other would take
    /// longer than a read may.
    async fn all<T, F: Future<Output = Result<T>>>(
        &self,
        read: impl Fn(usize) -> F,
    ) -> Vec<Answered<T>> {
        let order = self.wire.servers.order();
        let answers = join_all(order.iter().map(|index| read(*index))).await;
        order.into_iter().zip(answers).collect()
    }
}

/// One of the followers that share reads.
struct Sharing<'a>(&'a AtomicUsize);

impl<'a> Sharing<'a> {
    fn new(n_sharing: &'a AtomicUsize) -> Self {
        n_sharing.fetch_add(1, Relaxed);
        Self(n_sharing)
    }
}

impl Drop for Sharing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn add_younger(all: &mut BTreeMap<(String, String), Arc<InstanceInfo>>, entry: Arc<InstanceInfo>) {
    let key = (entry.app.clone(), entry.id().to_owned());
    let known = all.get(&key).map(|known| known.last_dirty_timestamp);
    if known.is_none_or(|known| known < entry.last_dirty_timestamp) {
        all.insert(key, entry);
    }
}

/// A process has this many connections to each server for them at most.
const MAX_ALONE: usize = 8;
