//! The whole registry as one server has it, kept up by its recent changes.

use std::{collections::BTreeMap, fmt::Write, mem, sync::Arc, time::Duration};

use tokio::time::Instant;
use tower_sd_core::Result;

use super::{
    http::{Answer, Call},
    reply::{Action, Application, Applications, ApplicationsReply, InstanceInfo, Status},
    servers::Servers,
};
use crate::{BACKEND, error::FOLLOW};

/// The entries of one application, by id.
pub(crate) type Entries = Arc<BTreeMap<String, Arc<InstanceInfo>>>;

/// All applications, by name, in capitals: a name has no case.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Registry(BTreeMap<String, Entries>);

/// Reads the registry, and later its changes alone.
#[derive(Debug)]
pub(super) struct Fetch {
    registry: Arc<Registry>,
    /// The server that the registry is of, until all of it is due again.
    base: Option<(usize, Instant)>,
    /// When the last read began.
    read_at: Instant,
    pub(super) n_full: u64,
}

impl Registry {
    /// The entries of an application; none of one that the server does not have.
    pub(crate) fn entries(&self, app: &str) -> Entries {
        self.0.get(app).cloned().unwrap_or_default()
    }

    fn of(applications: Applications) -> Self {
        let mut registry = Self::default();
        for Application { name, instance } in applications.application {
            let app = Arc::make_mut(registry.0.entry(name.to_uppercase()).or_default());
            app.extend(instance.into_iter().map(|it| (it.id().to_owned(), it)));
        }
        registry
    }

    fn apply(&mut self, changes: Applications) {
        for Application { name, instance } in changes.application {
            let name = name.to_uppercase();
            let app = Arc::make_mut(self.0.entry(name.clone()).or_default());
            for entry in instance {
                match entry.action_type {
                    Action::Deleted => app.remove(entry.id()),
                    Action::Present => app.insert(entry.id().to_owned(), entry),
                };
            }
            if app.is_empty() {
                self.0.remove(&name);
            }
        }
    }

    /// The number of entries of each status, as a server writes it: `DOWN_2_UP_31_`.
    fn hash(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in self.0.values().flat_map(|app| app.values()) {
            *counts.entry(Status::as_str(entry.status)).or_default() += 1;
        }
        counts.iter().fold(String::new(), |mut hash, (status, n)| {
            let _infallible = write!(hash, "{status}_{n}_");
            hash
        })
    }
}

impl Fetch {
    pub(super) fn new() -> Self {
        Self { registry: Arc::default(), base: None, read_at: Instant::now(), n_full: 0 }
    }

    /// Reads the registry as it is now.
    ///
    /// Reads the changes of the last 3 min where that suffices. It does not with another server
    /// than before, or when the last read is so long ago that changes may be missing. Nor does it
    /// when the result differs in number from that of the server. Equal numbers prove little, so
    /// that everything is read after 15 min in any case.
    pub(super) async fn read(&mut self, servers: &Servers) -> Result<Arc<Registry>> {
        let now = Instant::now();
        let last = mem::replace(&mut self.read_at, now);
        if let Some((server, until)) = self.base.take()
            && now - last < DELTA_WINDOW
            && until > now
            && servers.order().first() == Some(&server)
            && self.changes(servers, server).await
        {
            self.base = Some((server, until));
            return Ok(Arc::clone(&self.registry));
        }
        let (server, answer) = servers.send(&Call::get(FOLLOW, &["apps"])).await?;
        self.registry = Arc::new(read(&answer)?);
        self.base = Some((server, Instant::now() + FULL_EVERY));
        self.n_full += 1;
        Ok(Arc::clone(&self.registry))
    }

    /// Applies the recent changes; false where all must be read.
    async fn changes(&mut self, servers: &Servers, server: usize) -> bool {
        let answer = servers.probe(server, &Call::get(FOLLOW, &["apps", "delta"])).await;
        let changes = match answer.and_then(|answer| applications(&answer)) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::debug!(backend = BACKEND, error = %error.chain(), "changes not read");
                return false;
            }
        };
        let hash = changes.hash.clone();
        Arc::make_mut(&mut self.registry).apply(changes);
        self.registry.hash() == hash
    }
}

/// Reads the registry from a server's answer.
pub(super) fn read(answer: &Answer) -> Result<Registry> {
    applications(answer).map(Registry::of)
}

fn applications(answer: &Answer) -> Result<Applications> {
    answer.succeeded()?;
    answer.json::<ApplicationsReply>().map(|reply| reply.applications)
}

const FULL_EVERY: Duration = Duration::from_secs(15 * 60);
/// Servers keep changes for 3 min, and their cached answer may be a minute old.
const DELTA_WINDOW: Duration = Duration::from_secs(2 * 60);

#[cfg(test)]
mod tests;
