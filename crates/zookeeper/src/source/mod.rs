//! The wire of everything that is followed.

mod decode;
mod instances;
mod keys;
mod view;

use tokio::select;
use tower_sd_core::{ReadMode, ReadRequest, ReadResult, Result, Source, async_trait};

pub(crate) use self::instances::Instances;
use self::{
    decode::{Decode, Scope},
    keys::Keys,
    view::View,
};
use crate::{
    ZooKeeperConfig,
    client::{Client, SessionHandle, Update},
    error::error,
    path,
};

/// Follows a node, or its children.
///
/// Each read sets a watch; after an event, what it names is read again, and nothing else.
pub(crate) struct ZooKeeperSource<D: Decode> {
    client: Client,
    /// What is followed, or why that cannot be.
    scope: Result<Scope>,
    decode: D,
    session: Option<SessionHandle>,
    view: Option<View<D::Item>>,
}

/// Creates the source of a service's instances.
pub(crate) fn instances(
    client: &Client,
    config: &ZooKeeperConfig,
    service: &str,
) -> ZooKeeperSource<Instances> {
    let base = format!("{}{}", config.chroot, config.path);
    let scope = path::service(&base, service).map(Scope::Children);
    ZooKeeperSource::new(client, scope, Instances(config.layouts.clone()))
}

/// Creates the source of a node, or of the children of a node whose `key` is empty or ends in a
/// slash.
pub(crate) fn keys(client: &Client, config: &ZooKeeperConfig, key: &str) -> ZooKeeperSource<Keys> {
    let chroot = config.chroot.clone();
    let is_prefix = key.is_empty() || key.ends_with('/');
    let scope = path::normal(key).map(|path| match is_prefix {
        true => Scope::Children(format!("{chroot}{path}")),
        false => Scope::Node(format!("{chroot}{path}")),
    });
    ZooKeeperSource::new(client, scope, Keys::new(key))
}

#[async_trait]
impl<D: Decode> Source for ZooKeeperSource<D> {
    type Item = D::Item;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult<D::Item>> {
        let read = match request.mode {
            ReadMode::Changed => return self.changed(request.max_entries).await,
            ReadMode::Confirm => return self.confirm(request).await,
            ReadMode::Verify if self.view.is_some() => self.verify(request).await,
            _ => {
                self.view = None;
                self.refresh(request.max_entries).await
            }
        };
        match read {
            // The view waits for the connection, and is read then.
            Err(error) if error.is_transient() && self.view.is_some() => {
                Ok(ReadResult::trouble(error))
            }
            read => read,
        }
    }
}

impl<D: Decode> ZooKeeperSource<D> {
    fn new(client: &Client, scope: Result<Scope>, decode: D) -> Self {
        Self { client: client.clone(), scope, decode, session: None, view: None }
    }

    /// Waits for news, and reads what has changed.
    async fn changed(&mut self, max_entries: usize) -> Result<ReadResult<D::Item>> {
        let (Some(view), Some(session)) = (&mut self.view, &self.session) else {
            return Ok(ReadResult::resync("not watching"));
        };
        if view.is_idle() {
            let update = select! {
                update = view.next() => update,
                ended = session.task_ended() => {
                    self.view = None;
                    return Err(ended);
                }
            };
            match update {
                Update::Changes(changes) => view.note(changes),
                Update::Alive if view.is_idle() => return Ok(ReadResult::unchanged()),
                Update::Alive => {}
                Update::Trouble(cause) => {
                    let path = view.path().to_owned();
                    return Ok(ReadResult::trouble(error(cause, "follow", &path)));
                }
                Update::Ended => {
                    self.view = None;
                    return Ok(ReadResult::resync("session expired"));
                }
            }
        }
        match self.refresh(max_entries).await {
            // The changes are noted, and read with the next attempt.
            Err(error) if error.is_transient() => Ok(ReadResult::trouble(error)),
            result => result,
        }
    }

    /// One cheap read, which is not behind; all changes of data are watched for.
    async fn verify(&mut self, request: ReadRequest) -> Result<ReadResult<D::Item>> {
        let session = self.session();
        if let Some(view) = &mut self.view
            && view.is_current(&session).await?
        {
            return Ok(ReadResult::unchanged());
        }
        self.refresh(request.max_entries).await
    }

    /// Reads everything from a server that is not behind; the watches are kept.
    async fn confirm(&mut self, request: ReadRequest) -> Result<ReadResult<D::Item>> {
        let (session, scope) = (self.session(), self.scope.clone()?);
        let synced = session.sync(scope.path()).await;
        synced.map_err(|cause| error(cause, "follow", scope.path()))?;
        if let Some(view) = &mut self.view {
            view.note_all();
        }
        self.refresh(request.max_entries).await
    }

    /// Reads what may have changed, which is everything without a view.
    async fn refresh(&mut self, max_entries: usize) -> Result<ReadResult<D::Item>> {
        let (session, scope) = (self.session(), self.scope.clone()?);
        let view = self.view.get_or_insert_with(|| View::new(session.watch(scope.path()), scope));
        let refreshed = view.refresh(&session, &self.decode, max_entries).await;
        if let Err(error) = refreshed {
            if !error.is_transient() {
                self.view = None;
            }
            return Err(error);
        }
        Ok(ReadResult::set(view.entries()))
    }

    fn session(&mut self) -> SessionHandle {
        if self.session.as_ref().is_some_and(SessionHandle::has_ended) {
            self.session = None;
            self.view = None;
        }
        self.session.get_or_insert_with(|| self.client.session()).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ZooKeeper;

    /// A pause between repetitions would be one in which the connection is not noticed.
    #[tokio::test(start_paused = true)]
    async fn full_read_without_a_connection_waits_for_one() {
        let zookeeper = ZooKeeper::new(ZooKeeperConfig::new(["127.0.0.1:1"])).expect("it can work");
        let mut source = zookeeper.key_value("app/");
        let read = source.read(ReadRequest::new(ReadMode::Full)).await.expect("no error");
        assert!(format!("{read:?}").contains("Trouble"), "{read:?}");
        let waiting = source.read(ReadRequest::new(ReadMode::Changed));
        let reported = waiting.await.expect("no error");
        assert!(format!("{reported:?}").contains("Trouble"), "{reported:?}");
        let waiting = source.read(ReadRequest::new(ReadMode::Changed));
        let hour = std::time::Duration::from_secs(3600);
        tokio::time::timeout(hour, waiting).await.expect_err("it waits for the connection");
    }
}
