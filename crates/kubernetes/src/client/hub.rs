//! More services than are watched one by one.
//!
//! One task watches the namespace for all followers of a client.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    select,
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tower_sd_core::{Attached, Backoff, Error, Hub, Result, TaskGroup};

use super::{
    groups::View,
    slices::{Slices, Update},
    wire::Wire,
};
use crate::BACKEND;

/// The followers of one client, and the task that watches for them when they are many.
#[derive(Debug)]
pub(super) struct Sharing {
    followers: Arc<Followers>,
    hub: Hub<Arc<Board>>,
}

#[derive(Debug)]
struct Followers {
    followed: Mutex<Followed>,
    /// Whether followers share the watch.
    shared: watch::Sender<bool>,
    max_single: usize,
}

#[derive(Debug, Default)]
struct Followed {
    n: usize,
    services: HashMap<String, usize>,
}

/// The results of one run of the task.
#[derive(Debug, Default)]
struct Board {
    services: Mutex<HashMap<String, watch::Sender<Shared>>>,
    /// The lists that followers have requested, by number.
    requested: Mutex<u64>,
    wanted: Notify,
}

/// What the task has of one service.
#[derive(Clone, Debug, Default)]
struct Shared {
    /// Changes with each report.
    n: u64,
    /// The request of a list that is the first one with all slices of the service.
    first: u64,
    /// The youngest request that such a list has answered; 0: there was none yet.
    answered: u64,
    slices: View,
    error: Option<Error>,
}

/// One follower's place.
#[derive(Debug)]
pub(crate) struct Ticket {
    sharing: Arc<Sharing>,
    service: String,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    task: Attached<Arc<Board>>,
    shared: watch::Receiver<Shared>,
    /// The last report that the follower has taken.
    n_seen: u64,
}

impl Sharing {
    pub(super) fn new(wire: &Arc<Wire>) -> Arc<Self> {
        let followers = Arc::new(Followers {
            followed: Mutex::default(),
            shared: watch::Sender::new(false),
            max_single: wire.config.max_single_watches,
        });
        let (wire, watched) = (Arc::clone(wire), Arc::clone(&followers));
        let hub = Hub::new(BACKEND, TaskGroup::new(), move || {
            let board = Arc::new(Board::default());
            let wanted = Arc::clone(&watched);
            let wanted = Box::new(move |service: &str| wanted.has(service));
            let slices = Slices::of_namespace(Arc::clone(&wire), wanted);
            (Arc::clone(&board), run(slices, board))
        });
        Arc::new(Self { followers, hub })
    }

    pub(super) fn join(self: &Arc<Self>, service: &str) -> Ticket {
        let mut followed = self.followers.lock();
        followed.n += 1;
        *followed.services.entry(service.to_owned()).or_default() += 1;
        drop(followed);
        self.followers.decide();
        Ticket { sharing: Arc::clone(self), service: service.to_owned(), place: None }
    }
}

impl Followers {
    /// Begins to share above the bound, and ends below half of it.
    fn decide(&self) {
        let n = self.lock().n;
        self.shared.send_if_modified(|shared| {
            let bound = if *shared { self.max_single / 2 } else { self.max_single };
            std::mem::replace(shared, n > bound) != (n > bound)
        });
    }

    fn has(&self, service: &str) -> bool {
        self.lock().services.contains_key(service)
    }

    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    /// Requests a list that begins later than now.
    fn request(&self) -> u64 {
        let mut requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        *requested += 1;
        self.wanted.notify_one();
        *requested
    }

    fn last_request(&self) -> u64 {
        *self.requested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a service, which exists while a follower has it.
    fn subscribe(&self, service: &str) -> watch::Receiver<Shared> {
        let mut services = self.lock();
        services.retain(|_, place| place.receiver_count() > 0);
        let place = services.entry(service.to_owned()).or_insert_with(|| {
            // A list under way has dropped slices of a service that was not followed.
            let first = self.request();
            watch::Sender::new(Shared { first, ..Shared::default() })
        });
        place.subscribe()
    }

    /// Reports a list that answers this request and those before it.
    fn listed(&self, slices: &Slices, request: u64) {
        self.report(None, |service, shared| {
            if request >= shared.first {
                (shared.answered, shared.slices) = (request, slices.of(service));
            }
            shared.error = None;
        });
    }

    /// Reports to the followers of all services, or of one.
    fn report(&self, only: Option<&str>, change: impl Fn(&str, &mut Shared)) {
        let services = self.lock();
        let one = only.map(|only| services.get_key_value(only));
        let all = one.is_none().then_some(&*services);
        for (service, place) in one.flatten().into_iter().chain(all.into_iter().flatten()) {
            place.send_modify(|shared| {
                change(service, shared);
                shared.n += 1;
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Shared>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Whether the followers share one watch.
    pub(crate) fn is_shared(&self) -> bool {
        *self.sharing.followers.shared.borrow()
    }

    /// Waits until [`is_shared`](Self::is_shared) has this value; borrows nothing.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) fn sharing(&self, value: bool) -> impl Future<Output = ()> + Send + use<> {
        let mut shared = self.sharing.followers.shared.subscribe();
        async move {
            // The sender is in self.
            shared.wait_for(|shared| *shared == value).await.ok();
        }
    }

    /// Leaves the shared watch.
    pub(crate) fn leave(&mut self) {
        self.place = None;
    }

    /// What the task has now, if it has listed this service and does not fail.
    pub(crate) fn known(&mut self) -> Option<View> {
        let place = self.place();
        let shared = place.shared.borrow();
        let known = (shared.answered > 0 && shared.error.is_none()).then(|| shared.slices.clone());
        place.n_seen = shared.n;
        known
    }

    /// Waits for a list that begins later than now.
    ///
    /// # Errors
    ///
    /// That of the list, or of the task's end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn listed(&mut self) -> Result<View> {
        let place = self.place();
        place.n_seen = place.shared.borrow().n;
        let request = place.task.handle().request();
        loop {
            let shared = place.next().await?;
            if shared.answered >= request {
                return Ok(shared.slices);
            }
        }
    }

    /// Waits for the next report that follows a list of the service.
    ///
    /// # Errors
    ///
    /// The watch fails, or its task has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<View> {
        loop {
            let shared = self.place().next().await?;
            // Of a task that was started anew, and has not listed yet.
            if shared.answered > 0 {
                return Ok(shared.slices);
            }
        }
    }

    /// The place at the running task.
    fn place(&mut self) -> &mut Place {
        let place = self.place.take().filter(|place| !place.task.has_ended());
        let place = place.unwrap_or_else(|| {
            let task = self.sharing.hub.attach();
            let shared = task.handle().subscribe(&self.service);
            Place { task, shared, n_seen: 0 }
        });
        self.place.insert(place)
    }
}

impl Place {
    async fn next(&mut self) -> Result<Shared> {
        let Self { task, shared, n_seen } = self;
        let shared = select! {
            biased;
            shared = shared.wait_for(|shared| shared.n != *n_seen) => shared.map(|it| it.clone()),
            error = task.ended() => return Err(error),
        };
        // The task has dropped its board.
        let Ok(shared) = shared else { return Err(task.ended().await) };
        *n_seen = shared.n;
        match shared.error {
            Some(error) => Err(error),
            None => Ok(shared),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let followers = &self.sharing.followers;
        let mut followed = followers.lock();
        followed.n -= 1;
        if let Some(n) = followed.services.get_mut(&self.service) {
            *n -= 1;
            if *n == 0 {
                followed.services.remove(&self.service);
            }
        }
        drop(followed);
        followers.decide();
    }
}

/// Lists and watches; after a failure with backoff.
async fn run(mut slices: Slices, board: Arc<Board>) {
    let mut backoff = Backoff::new(MIN_INTERVAL, MAX_PAUSE);
    loop {
        let (not_before, request) = (Instant::now() + MIN_INTERVAL, board.last_request());
        let ended = match slices.list(usize::MAX).await {
            Ok(true) => {
                backoff.succeeded();
                slices.take_changed();
                board.listed(&slices, request);
                watch_on(&mut slices, &board, not_before).await
            }
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => sleep_until(not_before).await,
            Err(error) => {
                let pause = backoff.next_pause_after(&error).min(MAX_PAUSE);
                board.report(None, |_, shared| shared.error = Some(error.clone()));
                sleep(pause).await;
            }
        }
    }
}

/// Reports changes until a list is due, which followers request for a time `not_before` this.
async fn watch_on(slices: &mut Slices, board: &Board, not_before: Instant) -> Result<()> {
    let mut is_wanted = false;
    loop {
        let update = select! {
            biased;
            () = sleep_until(not_before), if is_wanted => return Ok(()),
            () = board.wanted.notified(), if !is_wanted => {
                is_wanted = true;
                continue;
            }
            update = slices.next(usize::MAX) => update,
        };
        match update {
            Update::Changed => {
                for service in &slices.take_changed() {
                    board.report(Some(service), |_, shared| {
                        if shared.answered > 0 {
                            shared.slices = slices.of(service);
                        }
                    });
                }
            }
            Update::Alive => board.report(None, |_, _| {}),
            Update::Trouble(error) => return Err(error),
            Update::Expired => return Ok(()),
        }
    }
}

/// Of lists that followers request: hundreds of them may start together.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// After failures; below the bound of a follower's read, which then reports their cause.
const MAX_PAUSE: Duration = Duration::from_secs(20);
