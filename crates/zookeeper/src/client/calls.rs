use std::time::Duration;

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    error::{ClientError, Refusal},
    watches::Arm,
    wire::{self, Access, CreateMode, Frame, Stat},
};

/// The requests of a session.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    requests: mpsc::Sender<Request>,
    timeout: Duration,
}

/// A node, as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) data: Vec<u8>,
    pub(crate) stat: Stat,
}

/// A node that was created.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Created {
    /// The session that has created it.
    pub(crate) session: i64,
    /// The transaction that has created it.
    pub(crate) czxid: i64,
}

/// A request, and the way of its answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) frame: Frame,
    /// The watch that it sets.
    pub(super) watch: Option<(Arm, String)>,
    pub(super) reply: oneshot::Sender<Result<Reply, ClientError>>,
}

/// An answer that is no error.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) session: i64,
    pub(super) zxid: i64,
    pub(super) body: Bytes,
}

impl Calls {
    /// Bounds each by `timeout`, the wait for a connection included.
    pub(super) fn new(requests: mpsc::Sender<Request>, timeout: Duration) -> Self {
        Self { requests, timeout }
    }

    /// Creates a node.
    ///
    /// # Cancel safety
    ///
    /// Dropped, or unanswered, it may have taken effect. So for all that write.
    pub(crate) async fn create(
        &self,
        path: &str,
        data: &[u8],
        mode: CreateMode,
        access: Access,
    ) -> Result<Created, ClientError> {
        let reply = self.call(Frame::create(path, data, mode, access), None).await?;
        Ok(Created { session: reply.session, czxid: reply.zxid })
    }

    /// Deletes a node that has this version.
    pub(crate) async fn delete(&self, path: &str, version: i32) -> Result<(), ClientError> {
        self.call(Frame::delete(path, version), None).await.map(drop)
    }

    /// Writes the data of a node that has this version.
    pub(crate) async fn set(
        &self,
        path: &str,
        data: &[u8],
        version: i32,
    ) -> Result<Stat, ClientError> {
        let reply = self.call(Frame::set(path, data, version), None).await?;
        Ok(wire::stat(&reply.body)?)
    }

    /// Reads whether a node exists, and watches it.
    pub(crate) async fn exists_watched(&self, path: &str) -> Result<Option<Stat>, ClientError> {
        let watch = Some((Arm::Absent, path.to_owned()));
        stat(self.call(Frame::exists(path, true), watch).await)
    }

    pub(crate) async fn exists(&self, path: &str) -> Result<Option<Stat>, ClientError> {
        stat(self.call(Frame::exists(path, false), None).await)
    }

    /// Reads a node, and watches it.
    pub(crate) async fn get_watched(&self, path: &str) -> Result<Option<Node>, ClientError> {
        let watch = Some((Arm::Data, path.to_owned()));
        node(self.call(Frame::get(path, true), watch).await)
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Option<Node>, ClientError> {
        node(self.call(Frame::get(path, false), None).await)
    }

    /// Reads the names of a node's children, and watches which it has.
    pub(crate) async fn children_watched(
        &self,
        path: &str,
    ) -> Result<Option<(Vec<String>, Stat)>, ClientError> {
        let watch = Some((Arm::Children, path.to_owned()));
        match self.call(Frame::children(path, true), watch).await {
            Ok(reply) => Ok(Some(wire::names_and_stat(&reply.body)?)),
            Err(error) => absent(error),
        }
    }

    /// Waits until the server has seen all that its leader has: reads can be behind.
    pub(crate) async fn sync(&self, path: &str) -> Result<(), ClientError> {
        self.call(Frame::sync(path), None).await.map(drop)
    }

    async fn call(&self, frame: Frame, watch: Option<(Arm, String)>) -> Result<Reply, ClientError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { frame, watch, reply };
        let bound = self.timeout;
        let answer = timeout(bound, async {
            let sent = self.requests.send(request).await;
            sent.map_err(|_request| ClientError::Ended)?;
            answer.await.map_err(|_dropped| ClientError::Ended)?
        });
        answer.await.unwrap_or_else(|_elapsed| Err(ClientError::Timeout(bound)))
    }

    /// Removes a node if it `is_ours`.
    pub(crate) async fn remove(
        &self,
        path: &str,
        is_ours: impl Fn(&Node) -> bool + Send + Sync,
    ) -> Result<(), ClientError> {
        // A creation may have taken effect at another server.
        self.sync(path).await?;
        loop {
            let Some(node) = self.get(path).await?.filter(|node| is_ours(node)) else {
                return Ok(());
            };
            match self.delete(path, node.stat.version).await {
                Err(cause) if cause.refusal() == Some(Refusal::BadVersion) => {}
                Err(cause) if cause.refusal() == Some(Refusal::NoNode) => return Ok(()),
                removed => return removed,
            }
        }
    }
}

fn stat(reply: Result<Reply, ClientError>) -> Result<Option<Stat>, ClientError> {
    match reply {
        Ok(reply) => Ok(Some(wire::stat(&reply.body)?)),
        Err(error) => absent(error),
    }
}

fn node(reply: Result<Reply, ClientError>) -> Result<Option<Node>, ClientError> {
    match reply {
        Ok(reply) => {
            let (data, stat) = wire::data_and_stat(&reply.body)?;
            Ok(Some(Node { data, stat }))
        }
        Err(error) => absent(error),
    }
}

fn absent<T>(error: ClientError) -> Result<Option<T>, ClientError> {
    match error.refusal() {
        Some(Refusal::NoNode) => Ok(None),
        _ => Err(error),
    }
}
