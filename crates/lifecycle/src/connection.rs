//! Accepted connections, which are counted and can be aborted.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// An accepted connection of a [`Listener`](crate::Listener).
pub struct Connection {
    stream: Stream,
    addresses: Addresses,
    /// Two, because a reader and a writer may be different tasks.
    abort_read: Pin<Box<WaitForCancellationFutureOwned>>,
    abort_write: Pin<Box<WaitForCancellationFutureOwned>>,
    /// After the last sent byte: the time left for reading.
    lingers: Option<Pin<Box<Sleep>>>,
    _open: Open,
}

/// TCP, a unix socket, or TLS above either.
pub(crate) type Stream = Pin<Box<dyn Duplex>>;

/// A stream that is read from and written to.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// The IP addresses of a connection; a unix socket has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
}

/// The connections of a listener, which outlive it. `Clone` shares them.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    abort: CancellationToken,
    open: Arc<watch::Sender<usize>>,
    /// The listener must accept no more.
    pub(crate) closing: CancellationToken,
    /// The listener is closed.
    pub(crate) closed: CancellationToken,
}

/// Counted as long as it lives.
struct Open(Arc<watch::Sender<usize>>);

impl Connection {
    /// Returns the address of the peer; `None` for a peer at a unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.addresses.peer
    }

    /// Returns the local address; `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addresses.local
    }

    fn writable(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut dyn Duplex>> {
        match self.abort_write.as_mut().poll(context) {
            Poll::Ready(()) => Err(aborted()),
            Poll::Pending => Ok(self.stream.as_mut()),
        }
    }
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self {
            abort: CancellationToken::new(),
            open: Arc::new(watch::Sender::new(0)),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
        }
    }

    pub(crate) fn add(&self, stream: Stream, addresses: Addresses) -> Connection {
        // A token each: all connections would contend for the lock of a common one at every read.
        let abort = self.abort.child_token();
        Connection {
            stream,
            addresses,
            abort_read: Box::pin(abort.clone().cancelled_owned()),
            abort_write: Box::pin(abort.cancelled_owned()),
            lingers: None,
            _open: Open::new(&self.open),
        }
    }

    pub(crate) fn n_open(&self) -> usize {
        *self.open.borrow()
    }

    /// Closes the listener after it has accepted the waiting connections.
    ///
    /// None of them is reset, and later ones are refused, which no client mistakes for a lost
    /// request.
    pub(crate) fn stop_accepting(&self) {
        self.closing.cancel();
    }

    /// Ends the open connections immediately.
    pub(crate) fn abort(&self) {
        self.abort.cancel();
    }

    /// Waits until the listener is closed and no connection is open. Cancel safe.
    pub(crate) async fn quiet(&self) {
        self.closed.cancelled().await;
        self.none_open().await;
    }

    /// Waits until no connection is open. Cancel safe.
    pub(crate) async fn none_open(&self) {
        let mut open = self.open.subscribe();
        // Only fails without a sender, and this is one.
        let _none_open = open.wait_for(|n| *n == 0).await;
    }
}

impl Open {
    fn new(open: &Arc<watch::Sender<usize>>) -> Self {
        open.send_modify(|n| *n += 1);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.abort_read.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(aborted())),
            Poll::Pending => self.stream.as_mut().poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writable(context)?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writable(context)?.poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writable(context)?.poll_flush(context)
    }

    /// Closed with unread bytes, a connection is reset, and the reset overtakes the last sent
    /// bytes: the peer would never read the GOAWAY that names its unprocessed requests.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // First: a peer that reads nothing keeps the end of TLS from being written.
        if this.abort_write.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(aborted()));
        }
        let lingers = match &mut this.lingers {
            Some(lingers) => lingers,
            None => {
                ready!(this.stream.as_mut().poll_shutdown(context))?;
                this.lingers.insert(Box::pin(sleep(LINGER)))
            }
        };
        // Before the reads: a fast sender must not keep the connection open.
        if lingers.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut unread = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut unread);
            match this.stream.as_mut().poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                // The peer has closed it too.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "aborted at the end of the drain")
}

/// A few round trips, until the peer has read that the connection closes.
const LINGER: Duration = Duration::from_millis(500);
