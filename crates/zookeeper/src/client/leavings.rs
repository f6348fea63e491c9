//! Nodes that their users have left behind for want of a connection.
//!
//! The session goes on for others, and such a node would live as long.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use super::{
    calls::{Calls, Node},
    error::Refusal,
};

/// Whether a node is the one to remove.
pub(crate) type IsOurs = Box<dyn Fn(&Node) -> bool + Send + Sync>;

/// The nodes to remove.
#[derive(Default)]
pub(super) struct Leavings {
    nodes: Mutex<VecDeque<Arc<Leaving>>>,
    added: Notify,
}

struct Leaving {
    path: String,
    is_ours: IsOurs,
}

/// Nodes that a successor takes care of.
///
/// # Drop
///
/// They are to be removed again.
#[must_use]
pub(crate) struct Held<'a> {
    leavings: &'a Leavings,
    nodes: VecDeque<Arc<Leaving>>,
}

impl Leavings {
    pub(super) fn add(&self, path: String, is_ours: IsOurs) {
        self.nodes().push_back(Arc::new(Leaving { path, is_ours }));
        self.added.notify_one();
    }

    /// Removes no node of this path for now.
    pub(super) fn hold(&self, path: &str) -> Held<'_> {
        let mut nodes = self.nodes();
        let (held, others) = nodes.drain(..).partition(|node| node.path == path);
        *nodes = others;
        drop(nodes);
        Held { leavings: self, nodes: held }
    }

    /// The session has ended, and its nodes with it.
    pub(super) fn clear(&self) {
        self.nodes().clear();
    }

    /// Removes them, for as long as it is polled.
    ///
    /// # Cancel safety
    ///
    /// A node whose removal was interrupted is removed later.
    pub(super) async fn remove(&self, calls: &Calls) -> Infallible {
        loop {
            let Some(leaving) = self.next() else {
                self.added.notified().await;
                continue;
            };
            let path = &leaving.path;
            // A successor may hold it meanwhile, and its own node may look alike.
            let is_ours = |node: &Node| self.has(&leaving) && (leaving.is_ours)(node);
            match calls.remove(path, is_ours).await {
                Ok(()) => self.done(&leaving),
                Err(error) if error.refusal() == Some(Refusal::NoAuth) => {
                    tracing::warn!(path, %error, "a node that was left behind stays");
                    self.done(&leaving);
                }
                Err(error) => {
                    tracing::debug!(path, %error, "cannot remove a node that was left behind");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// The first one, which becomes the last one.
    fn next(&self) -> Option<Arc<Leaving>> {
        let mut nodes = self.nodes();
        let next = nodes.pop_front();
        nodes.extend(next.clone());
        next
    }

    fn has(&self, leaving: &Arc<Leaving>) -> bool {
        self.nodes().iter().any(|node| Arc::ptr_eq(node, leaving))
    }

    fn done(&self, leaving: &Arc<Leaving>) {
        self.nodes().retain(|node| !Arc::ptr_eq(node, leaving));
    }

    fn nodes(&self) -> MutexGuard<'_, VecDeque<Arc<Leaving>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held<'_> {
    /// The successor has replaced them.
    pub(crate) fn forget(mut self) {
        self.nodes.clear();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.leavings.nodes().extend(self.nodes.drain(..));
        self.leavings.added.notify_one();
    }
}

impl fmt::Debug for Leavings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leavings").field("n_nodes", &self.nodes().len()).finish_non_exhaustive()
    }
}

const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::{select, sync::mpsc};

    use super::*;
    use crate::client::ClientError;

    #[tokio::test(start_paused = true)]
    async fn node_that_may_not_be_removed_is_given_up() {
        let (requests, mut receiver) = mpsc::channel(1);
        let calls = Calls::new(requests, PAUSE);
        let leavings = Leavings::default();
        leavings.add("/a".into(), Box::new(|_node| true));
        let answers = async {
            while let Some(request) = receiver.recv().await {
                drop(request.reply.send(Err(ClientError::Refused(Refusal::NoAuth))));
            }
        };
        select! {
            never = leavings.remove(&calls) => match never {},
            () = answers => {}
            () = sleep(PAUSE * 5) => {}
        }
        assert!(leavings.nodes().is_empty(), "{leavings:?}");
    }
}
