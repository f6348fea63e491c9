//! Adapters to and from tower's own notion of a changing set, `tower::discover`.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    hash::Hash,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::stream::{self, Stream, StreamExt};
use tokio::select;
use tower::discover::{Change, Discover};
use tower_sd_core::{
    AddressPolicy, BoxError, Entries, Error, ErrorKind, Instance, InstanceId, Instancer,
    LossPolicy, Publisher, PublisherConfig, ReadMode, Shutdown, Sink, Subscription, TaskGroup,
};

use super::{Endpointer, EndpointerConfig, Shared, factory_fn};

impl<S: Clone + Send + Sync + 'static> Endpointer<S> {
    /// What joins and leaves, as a stream that tower's balancers take: whoever is listed and wants requests, and those
    /// that are held while nobody is listed.
    ///
    /// It starts with everybody, skips what came and went between two polls, and keeps the endpointer alive. It is for
    /// what is built on tower's `Discover`; a [`Balance`](crate::Balance) needs none of it.
    pub fn changes(&self) -> impl Stream<Item = Result<Change<InstanceId, S>, Infallible>> + Send {
        let changes = Changes {
            versions: self.shared.versions(),
            shared: Arc::clone(&self.shared),
            seen: HashMap::new(),
            queue: VecDeque::new(),
            first: true,
        };
        stream::unfold(changes, |mut changes| async move {
            let change = changes.next().await?;
            Some((Ok(change), changes))
        })
    }
}

impl<S: Clone + Send + Sync + 'static> Endpointer<S> {
    /// Takes the services of any `Discover`; `instance_of` says which instance a key is.
    ///
    /// A service that is inserted again replaces the one before. After an error or the end of the stream the set stays
    /// what it is, and is stale.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn from_discover<D>(
        discover: D,
        instance_of: impl Fn(&D::Key) -> Instance + Send + 'static,
    ) -> Self
    where
        D: Discover<Service = S, Key: Eq + Hash + Send, Error: Into<BoxError>> + Send + 'static,
    {
        let mut config = PublisherConfig::new("discover", "discover")
            .loss(LossPolicy::Accept)
            .addresses(AddressPolicy::any());
        config.removal_wait = Duration::ZERO;
        let publisher = Publisher::new(config);
        let (services, tasks) = (Services::default(), TaskGroup::new());
        let subscription = publisher.subscribe().with_owner(Arc::new(tasks.clone()));
        let made = services.clone();
        let factory = factory_fn(move |instance: Instance| {
            let service = made.lock().get(instance.id()).cloned();
            async move { service.ok_or_else(|| BoxError::from("it has left")) }
        });
        tasks.spawn(|stop| pump(discover, instance_of, publisher, services, stop));
        Self::with_config(&Subscribed(subscription), factory, EndpointerConfig::new())
    }
}

struct Changes<S: 'static> {
    shared: Arc<Shared<S>>,
    versions: tokio::sync::watch::Receiver<u64>,
    /// Who was announced, and the key of the endpoint.
    seen: HashMap<InstanceId, u64>,
    queue: VecDeque<Change<InstanceId, S>>,
    first: bool,
}

impl<S: Clone + Send + Sync + 'static> Changes<S> {
    async fn next(&mut self) -> Option<Change<InstanceId, S>> {
        loop {
            if let Some(change) = self.queue.pop_front() {
                return Some(change);
            }
            if !std::mem::take(&mut self.first) {
                self.versions.changed().await.ok()?;
            }
            self.versions.borrow_and_update();
            self.compare();
        }
    }

    fn compare(&mut self) {
        let now = self.shared.state().tiers.pickable();
        let ids: HashSet<_> = now.iter().map(|endpoint| endpoint.stats.id.clone()).collect();
        self.seen.retain(|id, _| {
            let stays = ids.contains(id);
            if !stays {
                self.queue.push_back(Change::Remove(id.clone()));
            }
            stays
        });
        for endpoint in now {
            let (id, key) = (endpoint.stats.id.clone(), endpoint.stats.key);
            if self.seen.insert(id.clone(), key) != Some(key) {
                self.queue.push_back(Change::Insert(id, endpoint.service.clone()));
            }
        }
    }
}

/// The services that a `Discover` has inserted.
struct Services<S>(Arc<Mutex<HashMap<InstanceId, S>>>);

impl<S> Services<S> {
    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pump<D>(
    discover: D,
    instance_of: impl Fn(&D::Key) -> Instance + Send,
    mut publisher: Publisher,
    services: Services<D::Service>,
    stop: Shutdown,
) where
    D: Discover<Key: Eq + Hash + Send, Error: Into<BoxError>>,
    D::Service: Send,
{
    let mut discover = pin!(discover);
    let mut members: HashMap<D::Key, Instance> = HashMap::new();
    let mut n_inserted: u64 = 0;
    let mut open = true;
    loop {
        let change = stream::poll_fn(|cx| discover.as_mut().poll_discover(cx));
        let mut change = pin!(change);
        select! {
            biased;
            () = stop.requested() => return,
            change = change.next(), if open => match change {
                Some(Ok(Change::Insert(key, service))) => {
                    n_inserted += 1;
                    // Another scheme is another address: the service before is replaced.
                    let instance = instance_of(&key).with_scheme(format!("discover-{n_inserted}"));
                    let before = services.lock().insert(instance.id().clone(), service);
                    drop(before);
                    members.insert(key, instance);
                    publisher.set(listed(&members));
                }
                Some(Ok(Change::Remove(key))) => {
                    let gone = members.remove(&key);
                    let service = gone.and_then(|gone| services.lock().remove(gone.id()));
                    drop(service);
                    publisher.set(listed(&members));
                }
                Some(Err(error)) => publisher.failed(failure("the discovery failed").with_source(error)),
                None => {
                    publisher.failed(failure("the discovery has ended"));
                    open = false;
                }
            },
            () = publisher.due() => {}
        }
    }
}

/// The members as a set that nothing stronger could confirm.
fn listed<K>(members: &HashMap<K, Instance>) -> Entries<Instance> {
    Entries::new(members.values().cloned().collect()).with_mode(ReadMode::Confirm)
}

fn failure(message: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "discover", "follow").with_message(message)
}

struct Subscribed(Subscription);

impl Instancer for Subscribed {
    fn subscribe(&self) -> Subscription {
        self.0.clone()
    }
}

impl<S> Clone for Services<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Default for Services<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}
