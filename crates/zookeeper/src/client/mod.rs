//! A client of ZooKeeper: one session, its nodes and watches.
//!
//! Nothing in it is of discovery.

mod calls;
mod error;
mod exchange;
mod frames;
mod jute;
mod leavings;
mod session;
mod settings;
mod watches;
mod wire;

use std::{ops::Deref, sync::Arc};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tower_sd_core::{Attached, Error, Hub, TaskGroup};

pub(crate) use self::{
    calls::{Calls, Created, Node},
    error::{ClientError, Refusal},
    leavings::{Held, IsOurs},
    session::SessionState,
    settings::{Credentials, Server, Settings},
    watches::{Changes, Update, Watch},
    wire::{Access, CreateMode, Stat},
};
use self::{
    leavings::Leavings,
    session::{Key, Session},
    watches::Watches,
};

/// The way to an ensemble. `Clone` shares its one session.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    hub: Arc<Hub<Link>>,
}

/// The way to the task of the session.
#[derive(Debug)]
struct Link {
    calls: Calls,
    leavings: Arc<Leavings>,
    state: watch::Receiver<SessionState>,
    watches: Arc<Watches>,
}

/// A place of one user at the session.
///
/// # Drop
///
/// The last one closes the session.
#[derive(Clone, Debug)]
pub(crate) struct SessionHandle {
    link: Attached<Link>,
}

impl Client {
    pub(crate) fn new(backend: &'static str, settings: Settings) -> Self {
        let (settings, tasks) = (Arc::new(settings), TaskGroup::new());
        let closing = tasks.clone();
        let hub = Hub::new(backend, tasks, move || {
            let (requests, receiver) = mpsc::channel(QUEUE);
            let (sender, state) = watch::channel(SessionState::default());
            let calls = Calls::new(requests, settings.request_timeout);
            let (watches, leavings) = (Arc::<Watches>::default(), Arc::<Leavings>::default());
            let link = Link {
                calls: calls.clone(),
                leavings: Arc::clone(&leavings),
                state,
                watches: Arc::clone(&watches),
            };
            let session = Session {
                settings: Arc::clone(&settings),
                requests: receiver,
                watches,
                leavings,
                calls,
                key: Key::default(),
                state: sender,
                tasks: closing.clone(),
                next_server: 0,
                left_at: Instant::now(),
                credentials: None,
            };
            (link, session.run())
        });
        Self { hub: Arc::new(hub) }
    }

    /// Takes a place at the session.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub(crate) fn session(&self) -> SessionHandle {
        SessionHandle { link: self.hub.attach() }
    }
}

impl SessionHandle {
    /// Whether its task has ended: another place is to be taken.
    pub(crate) fn has_ended(&self) -> bool {
        self.link.has_ended()
    }

    /// Waits until its task has ended.
    pub(crate) async fn task_ended(&self) -> Error {
        self.link.ended().await
    }

    pub(crate) fn state(&self) -> SessionState {
        *self.link.handle().state.borrow()
    }

    /// Waits until another session has taken the place of this one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn ended(&self, id: i64) {
        let mut state = self.link.handle().state.clone();
        // An error means that the task has ended, and the session with it.
        drop(state.wait_for(|state| state.id != 0 && state.id != id).await);
    }

    /// Watches a node and its children, as far as reads set watches.
    pub(crate) fn watch(&self, path: &str) -> Watch {
        self.link.handle().watches.watch(path)
    }

    /// Removes a node if it `is_ours`, as soon as there is a connection: for a user that leaves.
    pub(crate) fn remove_later(&self, path: String, is_ours: IsOurs) {
        self.link.handle().leavings.add(path, is_ours);
    }

    /// Removes no node of this path for now: for a user that replaces it, by one that may look
    /// alike.
    pub(crate) fn hold_leavings(&self, path: &str) -> Held<'_> {
        self.link.handle().leavings.hold(path)
    }
}

impl Deref for SessionHandle {
    type Target = Calls;

    fn deref(&self) -> &Calls {
        &self.link.handle().calls
    }
}

/// How many requests may wait for the task; more wait for a place.
const QUEUE: usize = 256;

#[cfg(test)]
pub(crate) mod tests;
