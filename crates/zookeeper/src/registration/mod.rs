//! One instance's node, which ends with the session.

mod owned;
mod place;
mod too_large;

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until},
};
use tower_sd_core::{
    Announcement, Announcer, Error, ErrorKind, LeaseTtl, LossReason, Registration, Renewal, Result,
    async_trait,
};

use self::{owned::Owned, place::Place, too_large::TooLarge};
use crate::{
    Acl, BACKEND, Layout, ZooKeeperConfig,
    client::{Access, Client, ClientError, IsOurs, Node, Refusal, SessionHandle, Stat},
    config::refused,
    error::{error, is_suspicious, of_data, too_large},
    path,
};

/// Keeps one instance's node.
///
/// The session that owns the node and the transaction that has created it distinguish
/// registrations.
pub(crate) struct ZooKeeperAnnouncer {
    client: Client,
    layout: Arc<dyn Layout>,
    place: Place,
    session: Option<SessionHandle>,
    owned: Option<Owned>,
    /// Data of a node whose creation may have taken effect.
    in_doubt: Option<Vec<u8>>,
    /// The transaction that has created the latest node of another registration: that never becomes
    /// ours, although session and data may be the same.
    other: i64,
    too_large: TooLarge,
    max_request: usize,
    /// The session of the node that was owned last.
    last_session: i64,
    /// When to read a node that was taken over.
    read_at: Instant,
}

/// What stands in the way of a new node.
enum Obstacle {
    /// None any more.
    Gone,
    /// The node was made by a request whose answer was lost.
    Ours(Owned),
    /// Another registration's.
    Other { by: String },
}

impl ZooKeeperAnnouncer {
    pub(crate) fn new(
        client: &Client,
        config: &ZooKeeperConfig,
        registration: &Registration,
    ) -> Result<Self> {
        let layout = config.layouts.first().ok_or_else(|| refused("no layout given"))?;
        let base = format!("{}{}", config.chroot, config.path);
        let service = path::service(&base, registration.service())?;
        let id = registration.instance().id().as_str();
        if id.is_empty() {
            return Err(refused("an instance needs an id that is not empty"));
        }
        let access = match config.acl {
            Acl::Open => Access::Open,
            Acl::Creator => Access::Creator,
        };
        Ok(Self {
            client: client.clone(),
            place: Place::new(format!("{service}/{}", layout.node(id)), access),
            layout: Arc::clone(layout),
            session: None,
            owned: None,
            in_doubt: None,
            other: 0,
            too_large: TooLarge::default(),
            max_request: config.max_request,
            last_session: 0,
            read_at: Instant::now(),
        })
    }

    fn session(&mut self) -> SessionHandle {
        if self.session.as_ref().is_some_and(SessionHandle::has_ended) {
            self.session = None;
        }
        self.session.get_or_insert_with(|| self.client.session()).clone()
    }

    /// Writes the data of the node that is owned; `false`: it is another one now.
    async fn update(
        &mut self,
        session: &SessionHandle,
        owned: Owned,
        data: &[u8],
    ) -> Result<bool, ClientError> {
        let path = self.place.path();
        // A version alone does not show whose node it is: that is read first.
        let found = session.get(path).await?.map(|node| node.stat);
        let Some(stat) = found.filter(|stat| owned.is(stat)) else {
            self.disown(found);
            return Ok(false);
        };
        match session.set(path, data, stat.version).await {
            Ok(stat) if owned.is(&stat) => {
                self.owned = Some(Owned { version: stat.version, ..owned });
                Ok(true)
            }
            // A successor's node took its place in between; it will write its data again.
            Ok(stat) => {
                self.disown(Some(stat));
                Ok(false)
            }
            Err(cause) => match cause.refusal() {
                Some(Refusal::BadVersion | Refusal::NoNode) => Ok(false),
                _ => Err(cause),
            },
        }
    }

    /// Creates the node, and its parents if need be; `None`: something stands in the way.
    async fn create(
        &mut self,
        session: &SessionHandle,
        data: &[u8],
    ) -> Result<Option<Owned>, ClientError> {
        let is_first = self.in_doubt.is_none();
        self.in_doubt.get_or_insert_with(|| data.to_vec());
        match self.place.create(session, data).await {
            Ok(created) => {
                self.in_doubt = None;
                Ok(Some(Owned { session: created.session, czxid: created.czxid, version: 0 }))
            }
            Err(cause) if cause.refusal() == Some(Refusal::NodeExists) => {
                // Without an earlier doubt it is certainly another's.
                if is_first {
                    self.in_doubt = None;
                }
                Ok(None)
            }
            Err(cause) => {
                // It shows nothing of an earlier creation that is in doubt.
                if is_first && cause.is_without_effect() {
                    self.in_doubt = None;
                }
                Err(cause)
            }
        }
    }

    /// Resolves a doubt about a creation with other data than these: one doubt is all that is kept.
    async fn resolve(&mut self, session: &SessionHandle, data: &[u8]) -> Result<(), ClientError> {
        if self.in_doubt.as_ref().is_none_or(|in_doubt| in_doubt == data) {
            return Ok(());
        }
        // The creation may have taken effect at another server.
        session.sync(self.place.path()).await?;
        let node = session.get(self.place.path()).await?;
        let is_ours = self.is_ours(session);
        let ours = node.filter(|node| is_ours.is_some_and(|is_ours| is_ours(node)));
        if let Some(Node { stat: Stat { czxid, version, owner, .. }, .. }) = ours {
            self.own(Owned { session: owner, czxid, version });
        }
        self.in_doubt = None;
        Ok(())
    }

    /// Reads the node that exists already, and removes it if it is a predecessor's.
    async fn obstacle(
        &mut self,
        session: &SessionHandle,
        takes_over: bool,
    ) -> Result<Obstacle, ClientError> {
        let Some(node) = session.get(self.place.path()).await? else { return Ok(Obstacle::Gone) };
        let Stat { czxid, version, owner, .. } = node.stat;
        if self.is_ours(session).is_some_and(|is_ours| is_ours(&node)) {
            self.in_doubt = None;
            return Ok(Obstacle::Ours(Owned { session: owner, czxid, version }));
        }
        self.disown(Some(node.stat));
        // Its session is a former one of ours.
        let is_left_over = owner != 0 && owner == self.last_session;
        let by = self.describe(&node);
        if !takes_over && (!is_left_over || owner == session.state().id) {
            self.in_doubt = None;
            return Ok(Obstacle::Other { by });
        }
        tracing::warn!(backend = BACKEND, path = self.place.path(), by, "replacing a node");
        match session.delete(self.place.path(), version).await {
            Ok(()) => Ok(Obstacle::Gone),
            Err(cause) => match cause.refusal() {
                Some(Refusal::NoNode | Refusal::BadVersion) => Ok(Obstacle::Gone),
                _ => Err(cause),
            },
        }
    }

    async fn write(
        &mut self,
        session: &SessionHandle,
        data: &[u8],
        takes_over: bool,
    ) -> Result<Option<LossReason>, ClientError> {
        self.resolve(session, data).await?;
        for _ in 0..ATTEMPTS {
            match self.owned {
                Some(owned) if owned.session == session.state().id => {
                    if self.update(session, owned, data).await? {
                        return Ok(None);
                    }
                }
                _ => self.owned = None,
            }
            if self.owned.is_none() {
                match self.create(session, data).await? {
                    Some(owned) => {
                        self.own(owned);
                        return Ok(None);
                    }
                    None => match self.obstacle(session, takes_over).await? {
                        Obstacle::Gone => {}
                        Obstacle::Ours(owned) => self.own(owned),
                        Obstacle::Other { by } => return Ok(Some(LossReason::TakenOver { by })),
                    },
                }
            }
        }
        Err(ClientError::Refused(Refusal::BadVersion))
    }

    /// How to recognize the node, where there may be one.
    fn is_ours(&self, session: &SessionHandle) -> Option<IsOurs> {
        if let Some(owned) = self.owned {
            return Some(Box::new(move |node| owned.is(&node.stat)));
        }
        let (data, id, other) = (self.in_doubt.clone()?, session.state().id, self.other);
        // Without a session nothing was sent, and a node without an owner has the same number.
        if id == 0 {
            return None;
        }
        Some(Box::new(move |Node { data: found, stat }| {
            stat.owner == id && stat.czxid != other && *found == data
        }))
    }

    fn own(&mut self, owned: Owned) {
        self.owned = Some(owned);
        self.last_session = owned.session;
    }

    /// There is no node, or another registration's.
    fn disown(&mut self, found: Option<Stat>) {
        self.owned = None;
        self.other = found.map_or(self.other, |other| other.czxid);
    }

    /// The loss of a node that is not there, or is not the own one.
    async fn loss(&mut self, session: &SessionHandle) -> Result<LossReason, ClientError> {
        self.read_at = Instant::now() + session.state().timeout / 3;
        let node = session.get(self.place.path()).await?;
        self.disown(node.as_ref().map(|node| node.stat));
        Ok(node.map_or(LossReason::Gone, |node| LossReason::TakenOver { by: self.describe(&node) }))
    }

    /// The address and the session of another registration.
    fn describe(&self, node: &Node) -> String {
        let session = match node.stat.owner {
            0 => "no session".to_owned(),
            owner => format!("session {owner:#x}"),
        };
        let name = self.place.path().rsplit_once('/').map_or("", |(_parent, name)| name);
        match self.layout.decode(name, &node.data) {
            Ok(instance) => format!("{instance}, {session}"),
            Err(_other) => session,
        }
    }
}

#[async_trait]
impl Announcer for ZooKeeperAnnouncer {
    async fn announce(&mut self, announcement: &Announcement) -> Result<Renewal> {
        let data = self.layout.encode(announcement).map_err(|cause| {
            let message = format!("{:?} cannot write the instance", self.layout);
            let error = Error::new(ErrorKind::Config, BACKEND, "register");
            error.with_message(message).with_source(cause)
        })?;
        if self.too_large.is(&data) {
            return Err(too_large(self.place.path(), data.len()));
        }
        let session = self.session();
        let takes_over = announcement.takes_over;
        let held = takes_over.then(|| session.hold_leavings(self.place.path()));
        let (n_bytes, limit) = (data.len(), self.max_request);
        let written = match n_bytes > limit {
            true => Err(ClientError::RequestTooLarge { n_bytes, limit }),
            false => self.write(&session, &data, takes_over).await,
        };
        if let (Some(held), Some(_)) = (held, self.owned) {
            held.forget();
        }
        let is_unanswered = |cause| is_suspicious(cause, data.len());
        self.too_large.written(&data, written.as_ref().is_err_and(is_unanswered));
        let loss = written.map_err(|cause| {
            let is_nothing = self.owned.is_none() && self.in_doubt.is_none();
            let is_nothing = is_nothing && cause.is_without_effect();
            let error = of_data(cause, self.place.path(), data.len());
            if is_nothing { error.without_effect() } else { error }
        })?;
        self.read_at = Instant::now() + session.state().timeout / 3;
        Ok(loss.map_or_else(|| Renewal::Renewed(ttl(&session)), Renewal::Lost))
    }

    async fn renew(&mut self, _announcement: &Announcement) -> Result<Renewal> {
        let session = self.session();
        let Some(owned) = self.owned else {
            return Ok(Renewal::Lost(LossReason::Gone));
        };
        if session.state().id != owned.session {
            self.owned = None;
            return Ok(Renewal::Lost(LossReason::SessionEnded));
        }
        let failed = |cause| error(cause, "renew", self.place.path());
        match session.exists(self.place.path()).await.map_err(failed)? {
            Some(stat) if owned.is(&stat) && stat.version == owned.version => {
                Ok(Renewal::Renewed(ttl(&session)))
            }
            // Another client has written it: our data is written again.
            Some(stat) if owned.is(&stat) => Ok(Renewal::Lost(LossReason::Gone)),
            _ => {
                let loss = self.loss(&session).await;
                let failed = |cause| error(cause, "renew", self.place.path());
                loss.map(Renewal::Lost).map_err(failed)
            }
        }
    }

    async fn lost(&mut self) -> LossReason {
        let session = self.session();
        if let Some(owned) = self.owned {
            session.ended(owned.session).await;
            return LossReason::SessionEnded;
        }
        // Taken over: until the other node is gone.
        loop {
            sleep_until(self.read_at).await;
            self.read_at = Instant::now() + session.state().timeout / 3;
            match session.exists(self.place.path()).await {
                Ok(None) => return LossReason::Gone,
                Ok(other) if self.in_doubt.is_none() => self.disown(other),
                _ => {}
            }
        }
    }

    async fn withdraw(&mut self) -> Result<()> {
        if let Some(is_ours) = self.session.as_ref().and_then(|session| self.is_ours(session)) {
            // Another one, if its task has ended: the servers keep the node for a while.
            let removed = self.session().remove(self.place.path(), is_ours).await;
            removed.map_err(|cause| error(cause, "deregister", self.place.path()))?;
        }
        (self.owned, self.in_doubt, self.session) = (None, None, None);
        Ok(())
    }
}

impl Drop for ZooKeeperAnnouncer {
    /// What could not be withdrawn is removed with the next connection: the session goes on for
    /// others.
    fn drop(&mut self) {
        if let Some(is_ours) = self.session.as_ref().and_then(|session| self.is_ours(session))
            && Handle::try_current().is_ok()
        {
            self.session().remove_later(self.place.path().to_owned(), is_ours);
        }
    }
}

/// Attempts without a connection are free, and a new session is to have its node soon.
fn ttl(session: &SessionHandle) -> LeaseTtl {
    LeaseTtl::new(session.state().timeout).retried_within(Duration::from_secs(1))
}

/// Of processes with one id that start together, all but one notice the last one sooner.
const ATTEMPTS: usize = 8;

#[cfg(test)]
mod tests;
