//! Nodes that their users have left behind for want of a connection.
//!
//! The session goes on for others, and such a node would live as long.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt, mem,
    sync::{Mutex, MutexGuard, PoisonError},
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
    nodes: Mutex<VecDeque<(String, IsOurs)>>,
    added: Notify,
}

impl Leavings {
    pub(super) fn add(&self, path: String, is_ours: IsOurs) {
        self.nodes().push_back((path, is_ours));
        self.added.notify_one();
    }

    /// A successor takes care of the node.
    pub(super) fn forget(&self, path: &str) {
        self.nodes().retain(|(left, _)| left != path);
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
            let mut kept = Kept { leavings: self, node: self.nodes().pop_front() };
            let Some((path, is_ours)) = &kept.node else {
                self.added.notified().await;
                continue;
            };
            match calls.remove(path, is_ours).await {
                Ok(()) => kept.node = None,
                Err(error) if error.refusal() == Some(Refusal::NoAuth) => {
                    tracing::warn!(path, %error, "a node that was left behind stays");
                    kept.node = None;
                }
                Err(error) => {
                    tracing::debug!(path, %error, "cannot remove a node that was left behind");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn nodes(&self) -> MutexGuard<'_, VecDeque<(String, IsOurs)>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a node back unless it was removed.
struct Kept<'a> {
    leavings: &'a Leavings,
    node: Option<(String, IsOurs)>,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.leavings.nodes().extend(mem::take(&mut self.node));
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
