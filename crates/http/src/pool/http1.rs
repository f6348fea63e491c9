//! Connections that carry one request at a time.

use std::{
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use http_body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_sd::BoxError;
use tower_sd_core::Tasks;

use super::{
    Connection, Io, Pool, Target,
    connect::{connect, within},
    connection::Dialled,
};
use crate::{HttpError, HttpErrorKind, Protocol};

/// One open connection, owned by whoever may send on it. Dropped, it is closed.
pub(crate) struct Exclusive<B: Send + 'static> {
    pub(crate) sender: http1::SendRequest<B>,
    pub(crate) reused: bool,
    pub(super) target: Arc<Target>,
    /// None while it is idle.
    pub(super) place: Option<OwnedSemaphorePermit>,
    home: Weak<Pool<B>>,
    _close: DropGuard,
    /// A response may outlive the client that asked for it: its connection's task then has no other owner.
    _tasks: Tasks,
}

impl<B: Send + 'static> Exclusive<B> {
    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Waits until the previous exchange is over on both directions. `false`: it is closed.
    pub(crate) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.sender.poll_ready(cx).map(|settled| settled.is_ok())
    }
}

impl<B: Send + 'static> Exclusive<B> {
    /// Keeps it for the next request, if its endpoint still exists and has room.
    pub(crate) fn give_back(mut self) {
        self.reused = true;
        if let Some(pool) = self.home.upgrade()
            && !self.sender.is_closed()
        {
            pool.keep(self);
        }
    }
}

/// What keeps a connection going.
pub(super) struct Driver<B>
where
    B: Body + Send + 'static,
{
    connection: http1::Connection<TokioIo<Io>, B>,
    close: CancellationToken,
    target: Arc<Target>,
}

impl<B> Driver<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Runs until either side closes.
    pub(super) async fn run(self) {
        tokio::select! {
            () = self.close.cancelled() => {}
            ended = self.connection => if let Err(error) = ended {
                let address = &self.target.address;
                tracing::debug!(%address, %error, "connection ended with an error");
            }
        }
    }
}

/// Speaks HTTP/1.1 from now on.
pub(super) async fn begin<B>(
    io: Io,
    pool: &Weak<Pool<B>>,
    target: &Arc<Target>,
    tasks: Tasks,
) -> Result<(Exclusive<B>, Driver<B>), BoxError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let close = CancellationToken::new();
    let exclusive = Exclusive {
        sender,
        reused: false,
        target: Arc::clone(target),
        place: None,
        home: Weak::clone(pool),
        _close: close.clone().drop_guard(),
        _tasks: tasks,
    };
    Ok((exclusive, Driver { connection, close, target: Arc::clone(target) }))
}

/// Connects, says how it went, and then drives the connection until either side closes it.
///
/// One task does both, so that a connection whose caller gave up waiting is kept for the next one.
pub(super) async fn dial_and_drive<B>(
    home: Weak<Pool<B>>,
    gone: CancellationToken,
    place: OwnedSemaphorePermit,
    reply: oneshot::Sender<Dialled<B>>,
) where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let Some(pool) = home.upgrade() else {
        return;
    };
    let (target, tasks) = (Arc::clone(&pool.target), pool.tasks.clone());
    let bound = pool.settings.connect_timeout;
    drop(pool);
    let opening = within(bound, async {
        let (io, _) = connect(&target, Protocol::Http1).await?;
        begin(io, &home, &target, tasks).await
    });
    let opened = tokio::select! {
        biased;
        () = gone.cancelled() => return,
        opened = opening => opened,
    };
    let (mut connection, driver) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let error = HttpError::new(HttpErrorKind::Connect, &target.address, error);
            tracing::debug!(address = %target.address, error = ?error, "connect failed");
            if let Some(pool) = home.upgrade() {
                pool.negotiate_again();
            }
            drop(place);
            drop(reply.send(Err(error)));
            return;
        }
    };
    drop(home);
    connection.place = Some(place);
    if let Err(Ok(Some(unclaimed))) = reply.send(Ok(Some(Connection::Http1(connection)))) {
        unclaimed.give_back();
    }
    driver.run().await;
}
