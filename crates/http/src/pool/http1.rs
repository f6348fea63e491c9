//! Connections that carry one request at a time.

use std::{
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use http_body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::oneshot, time};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_sd::BoxError;
use tower_sd_core::Tasks;

use super::{
    Connection, Pool, Target,
    connection::{Dialled, connect},
};
use crate::{HttpError, HttpErrorKind};

/// One open connection, owned by whoever may send on it. Dropped, it is closed.
pub(crate) struct Exclusive<B: Send + 'static> {
    pub(crate) sender: http1::SendRequest<B>,
    pub(crate) reused: bool,
    pub(super) target: Arc<Target>,
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

/// Connects, says how it went, and then drives the connection until either side closes it.
///
/// One task does both, so that a connection whose caller gave up waiting is kept for the next one.
pub(super) async fn dial_and_drive<B>(
    home: Weak<Pool<B>>,
    gone: CancellationToken,
    reply: oneshot::Sender<Dialled<B>>,
) where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let Some((target, bound)) =
        home.upgrade().map(|pool| (Arc::clone(&pool.target), pool.settings.connect_timeout))
    else {
        return;
    };
    let opened = tokio::select! {
        biased;
        () = gone.cancelled() => return,
        opened = time::timeout(bound, open(&target)) => opened,
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(_) => Err(format!("not connected within {bound:?}").into()),
    };
    let (sender, driver) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let error = HttpError::new(HttpErrorKind::Connect, &target.address, error);
            tracing::debug!(address = %target.address, error = ?error, "connect failed");
            drop(reply.send(Err(error)));
            return;
        }
    };
    let close = CancellationToken::new();
    let Some(tasks) = home.upgrade().map(|pool| pool.tasks.clone()) else {
        return;
    };
    let connection = Exclusive {
        sender,
        reused: false,
        target: Arc::clone(&target),
        home,
        _close: close.clone().drop_guard(),
        _tasks: tasks,
    };
    if let Err(Ok(unclaimed)) = reply.send(Ok(Connection::Http1(connection))) {
        unclaimed.give_back();
    }
    tokio::select! {
        () = close.cancelled() => {}
        ended = driver => if let Err(error) = ended {
            tracing::debug!(address = %target.address, %error, "connection ended with an error");
        }
    }
}

async fn open<B>(
    target: &Target,
) -> Result<(http1::SendRequest<B>, http1::Connection<TokioIo<TcpStream>, B>), BoxError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    Ok(http1::handshake(TokioIo::new(connect(target).await?)).await?)
}
