//! Which services are followed: those with recent requests.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    select,
    time::{Instant, sleep},
};
use tower_sd::consul::Consul;
use tower_sd::http::Client;
use tower_sd::{Error, backend::TaskGroup};

/// Clients of the services that are followed.
#[derive(Debug)]
pub(crate) struct Services {
    consul: Consul,
    followed: Arc<Mutex<Followed>>,
    max: usize,
    tasks: TaskGroup,
}

type Followed = HashMap<String, Entry>;

#[derive(Debug)]
struct Entry {
    client: Client,
    used: Instant,
}

/// Why there is no client of a service.
#[derive(Debug)]
pub(crate) enum Missing {
    /// The catalogue does not list it.
    Unknown,
    /// The catalogue cannot be read.
    Unread(Error),
}

impl Services {
    /// Follows nothing yet; later, at most `max` services, each until it has had no request for
    /// `idle`.
    pub(crate) fn new(consul: Consul, idle: Duration, max: usize) -> Self {
        let (followed, tasks) = (Arc::default(), TaskGroup::new());
        let weak = Arc::downgrade(&followed);
        tasks.spawn(|stop| async move {
            select! {
                () = stop.requested() => {}
                () = let_go(weak, idle) => {}
            }
        });
        Self { consul, followed, max, tasks }
    }

    /// The client of a service, which is followed from now on if it was not yet.
    pub(crate) async fn client(&self, service: &str) -> Result<Client, Missing> {
        if let Some(client) = self.followed_already(service) {
            return Ok(client);
        }
        // Only what the catalogue lists is followed: a made-up name costs one read, and nothing
        // stays.
        match self.list().await {
            Ok(listed) if listed.contains_key(service) => Ok(self.follow(service)),
            Ok(_) => Err(Missing::Unknown),
            Err(error) => Err(Missing::Unread(error)),
        }
    }

    /// Everything that the catalogue lists, with its tags.
    pub(crate) async fn list(&self) -> Result<BTreeMap<String, Vec<String>>, Error> {
        self.consul.services().await
    }

    /// The services that are followed now, sorted.
    pub(crate) fn followed(&self) -> Vec<String> {
        let mut names: Vec<_> = lock(&self.followed).keys().cloned().collect();
        names.sort();
        names
    }

    pub(crate) async fn close(&self) {
        self.tasks.close().await;
        lock(&self.followed).clear();
    }

    fn followed_already(&self, service: &str) -> Option<Client> {
        let mut followed = lock(&self.followed);
        let entry = followed.get_mut(service)?;
        entry.used = Instant::now();
        Some(entry.client.clone())
    }

    fn follow(&self, service: &str) -> Client {
        let mut followed = lock(&self.followed);
        if let Some(entry) = followed.get(service) {
            // Another request was faster.
            return entry.client.clone();
        }
        while followed.len() >= self.max {
            let oldest = followed.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
            tracing::info!(service = oldest, "let go: too many are followed");
            followed.remove(&oldest);
        }
        tracing::info!(service, "followed");
        let client = Client::new(self.consul.instancer(service));
        let entry = Entry { client: client.clone(), used: Instant::now() };
        followed.insert(service.to_owned(), entry);
        client
    }
}

/// Drops services without requests; requests in flight keep what they need.
async fn let_go(followed: Weak<Mutex<Followed>>, idle: Duration) {
    loop {
        sleep(idle / 4).await;
        let Some(followed) = followed.upgrade() else { return };
        lock(&followed).retain(|service, entry| {
            let used = entry.used.elapsed() < idle;
            if !used {
                tracing::info!(service, "service dropped: no requests");
            }
            used
        });
    }
}

fn lock(followed: &Mutex<Followed>) -> MutexGuard<'_, Followed> {
    followed.lock().unwrap_or_else(PoisonError::into_inner)
}
