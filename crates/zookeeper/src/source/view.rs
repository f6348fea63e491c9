use std::{
    collections::{BTreeMap, BTreeSet},
    mem::replace,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tower_sd_core::{Error, ErrorKind, Result};

use super::decode::{Decode, Scope};
use crate::{
    BACKEND,
    client::{Changes, ClientError, Refusal, SessionHandle, Update, Watch},
    error::error,
};

/// What was read of a node's children, or of the node itself.
pub(super) struct View<T> {
    scope: Scope,
    watch: Watch,
    /// By name; a node itself has the empty one.
    items: BTreeMap<String, Result<T>>,
    /// The latest transaction that the list of children, or the node, has seen; 0 without a node.
    position: i64,
    /// To be read.
    changes: Changes,
}

/// The names of the children that there are.
struct Names {
    names: BTreeSet<String>,
    position: i64,
}

impl<T: Clone + Send + Sync> View<T> {
    /// A view of which nothing was read.
    pub(super) fn new(watch: Watch, scope: Scope) -> Self {
        let changes = Changes { node: true, children: BTreeSet::new() };
        Self { scope, watch, items: BTreeMap::new(), position: 0, changes }
    }

    pub(super) fn path(&self) -> &str {
        self.scope.path()
    }

    /// Whether there is nothing to be read, or no connection for it.
    pub(super) fn is_idle(&self) -> bool {
        self.changes.is_empty() || self.watch.is_in_trouble()
    }

    /// Waits for the next news.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn next(&self) -> Update {
        self.watch.next().await
    }

    pub(super) fn note(&mut self, changes: Changes) {
        self.changes.merge(changes);
    }

    pub(super) fn note_all(&mut self) {
        let children = self.items.keys().cloned().collect();
        self.changes.merge(Changes { node: true, children });
    }

    pub(super) fn entries(&self) -> Vec<Result<T>> {
        self.items.values().cloned().collect()
    }

    /// Whether the server has seen nothing newer; otherwise that is noted.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, it is noted, as after an error.
    pub(super) async fn is_current(&mut self, session: &SessionHandle) -> Result<bool> {
        let path = self.path().to_owned();
        // Without an answer, the next read lists again.
        let is_noted = replace(&mut self.changes.node, true);
        let read = async {
            session.sync(&path).await?;
            session.exists(&path).await
        };
        let stat = read.await.map_err(|cause| error(cause, "follow", &path))?;
        let position = match &self.scope {
            Scope::Node(_) => stat.map(|stat| stat.mzxid),
            Scope::Children(_) => stat.map(|stat| stat.pzxid),
        };
        let is_current = position.unwrap_or_default() == self.position;
        self.changes.node = is_noted || !is_current;
        // No watch reports that access to a child is given.
        let is_denied =
            |item: &Result<T>| item.as_ref().is_err_and(|error| error.kind() == ErrorKind::Denied);
        let denied = self.items.iter().filter(|(_, item)| is_denied(item));
        self.changes.children.extend(denied.map(|(name, _)| name.clone()));
        Ok(is_current && self.changes.is_empty())
    }

    /// Reads what may have changed: all of it, or nothing is different.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the changes stay noted.
    pub(super) async fn refresh<D: Decode<Item = T>>(
        &mut self,
        session: &SessionHandle,
        decode: &D,
        max_entries: usize,
    ) -> Result<()> {
        if let Scope::Node(path) = &self.scope {
            let path = path.clone();
            return self.refresh_node(session, decode, &path).await;
        }
        let path = self.path().to_owned();
        let names = match self.changes.node {
            true => Some(self.names(session, &path, max_entries).await?),
            false => None,
        };
        let is_there = |name: &String| match &names {
            Some(list) => list.names.contains(name),
            None => self.items.contains_key(name),
        };
        let changed = self.changes.children.iter().filter(|name| is_there(name));
        let listed = names.iter().flat_map(|list| &list.names);
        let new = listed.filter(|name| !self.items.contains_key(*name));
        let to_read: BTreeSet<String> = changed.chain(new).cloned().collect();
        let read = stream::iter(to_read)
            .map(|name| async {
                let item = child(session, decode, &format!("{path}/{name}")).await?;
                Ok::<_, Error>((name, item))
            })
            .buffered(CONCURRENT_READS);
        let read: Vec<_> = read.try_collect().await?;
        if let Some(Names { names, position }) = names {
            self.items.retain(|name, _| names.contains(name));
            self.position = position;
        }
        for (name, item) in read {
            self.put(name, item);
        }
        self.changes = Changes::default();
        Ok(())
    }

    async fn refresh_node<D: Decode<Item = T>>(
        &mut self,
        session: &SessionHandle,
        decode: &D,
        path: &str,
    ) -> Result<()> {
        let failed = |cause| error(cause, "follow", path);
        for _ in 0..ATTEMPTS {
            if let Some(node) = session.get_watched(path).await.map_err(failed)? {
                self.position = node.stat.mzxid;
                let item = decode.decode(path, &node.data, node.stat);
                self.put(String::new(), Some(item));
            } else if session.exists_watched(path).await.map_err(failed)?.is_none() {
                self.position = 0;
                self.put(String::new(), None);
            } else {
                continue;
            }
            self.changes = Changes::default();
            return Ok(());
        }
        Err(restless(path))
    }

    /// Lists the children, of which a node that does not exist has none.
    async fn names(
        &self,
        session: &SessionHandle,
        path: &str,
        max_entries: usize,
    ) -> Result<Names> {
        let failed = |cause| error(cause, "follow", path);
        for _ in 0..ATTEMPTS {
            if let Some((names, stat)) = session.children_watched(path).await.map_err(failed)? {
                if names.len() > max_entries {
                    let message = format!("{path} has more than {max_entries} children");
                    let error = Error::new(ErrorKind::Protocol, BACKEND, "follow");
                    return Err(error.with_message(message));
                }
                return Ok(Names { names: names.into_iter().collect(), position: stat.pzxid });
            }
            if session.exists_watched(path).await.map_err(failed)?.is_none() {
                return Ok(Names { names: BTreeSet::new(), position: 0 });
            }
        }
        Err(restless(path))
    }

    fn put(&mut self, name: String, item: Option<Result<T>>) {
        match item {
            Some(item) => drop(self.items.insert(name, item)),
            None => drop(self.items.remove(&name)),
        }
    }
}

/// Reads a child; `None` for one that has left. An error of the child alone is its item.
async fn child<D: Decode>(
    session: &SessionHandle,
    decode: &D,
    path: &str,
) -> Result<Option<Result<D::Item>>> {
    match session.get_watched(path).await {
        Ok(node) => Ok(node.map(|node| decode.decode(path, &node.data, node.stat))),
        Err(
            cause @ (ClientError::Refused(Refusal::NoAuth) | ClientError::ReplyTooLarge { .. }),
        ) => Ok(Some(Err(error(cause, "follow", path)))),
        Err(cause) => Err(error(cause, "follow", path)),
    }
}

fn restless(path: &str) -> Error {
    let message = format!("{path} comes and goes");
    Error::new(ErrorKind::Unavailable, BACKEND, "follow").with_message(message)
}

/// Keeps a connection with a round trip of 100 ms busy, without a queue of thousands.
const CONCURRENT_READS: usize = 256;
/// A node that is made or removed between two reads is read again.
const ATTEMPTS: usize = 5;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::client::tests::client;

    /// What follows waits for changes, and is not verified again for a minute.
    #[tokio::test(start_paused = true)]
    async fn verification_without_an_answer_leaves_a_list_to_read() {
        let session = client(1).session();
        let mut view = View::<()>::new(session.watch("/app"), Scope::Children("/app".to_owned()));
        view.changes = Changes::default();
        view.is_current(&session).await.expect_err("no connection");
        assert!(view.changes.node, "failed");
        view.changes = Changes::default();
        assert!(view.is_current(&session).now_or_never().is_none());
        assert!(view.changes.node, "dropped early");
    }
}
