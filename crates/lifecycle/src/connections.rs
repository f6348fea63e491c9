use std::{
    fmt,
    future::pending,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream::unfold;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, ToSocketAddrs},
    sync::watch,
    time::{Sleep, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use crate::socket::{ListeningSocket, Socket};

/// A listener whose connections are counted, and can be cut: of TCP, or of a unix socket.
///
/// Servers spawn a task per connection and keep no handle: without this, a request that never ends
/// would live as long as the process.
#[derive(Debug)]
pub struct Listener {
    /// `None` when it accepts no more.
    listener: Option<ListeningSocket>,
    #[cfg(feature = "tls")]
    tls: Option<tower_sd_net::TlsServer>,
    connections: Connections,
    _closed_on_drop: DropGuard,
}

/// The connections of a [`Listener`].
///
/// `Clone` shares them. When the last clone is gone, the connections go on.
#[derive(Clone, Debug)]
pub struct Connections {
    cut: CancellationToken,
    open: Arc<watch::Sender<usize>>,
    /// The listener is to accept no more.
    closing: CancellationToken,
    /// It does not listen any more.
    closed: CancellationToken,
}

/// An accepted connection.
pub struct Connection {
    stream: Socket,
    /// Two, because a reader and a writer may be different tasks.
    cut_read: Pin<Box<WaitForCancellationFutureOwned>>,
    cut_write: Pin<Box<WaitForCancellationFutureOwned>>,
    /// After our last byte: the time left for reading.
    lingers: Option<Pin<Box<Sleep>>>,
    _open: Open,
}

/// Counted as long as it lives.
struct Open(Arc<watch::Sender<usize>>);

impl Listener {
    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// The system's, for example of a port in use.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::from)
    }

    fn new(listener: ListeningSocket) -> Self {
        let connections = Connections::new();
        let _closed_on_drop = connections.closed.clone().drop_guard();
        Self {
            listener: Some(listener),
            #[cfg(feature = "tls")]
            tls: None,
            connections,
            _closed_on_drop,
        }
    }

    /// Returns the local address.
    ///
    /// # Errors
    ///
    /// The system's, `Unsupported` for a unix socket, and `NotConnected` after the listener was closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.listener {
            Some(listener) => listener.local_addr(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Requires TLS of every connection; the handshake delays no other connection.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(self, tls: tower_sd_net::TlsServer) -> Self {
        Self { tls: Some(tls), ..self }
    }

    #[cfg_attr(not(feature = "tls"), expect(clippy::unused_self, reason = "no TLS, no settings"))]
    fn secured(&self, stream: Socket) -> Socket {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Socket::Tls(Box::new(crate::tls::TlsSocket::new(stream, tls)));
        }
        stream
    }

    /// Returns its connections, which outlive it.
    #[must_use]
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Waits for the next connection, forever after [`Connections::stop_accepting`].
    ///
    /// The address is that of the peer; a peer at a unix socket has none.
    ///
    /// An error of one connection is skipped. Without a free descriptor it tries again after a second:
    /// another connection has to end first.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn accept(&mut self) -> (Connection, Option<SocketAddr>) {
        while let Some(listener) = &self.listener {
            let closing = &self.connections.closing;
            let accepted = if closing.is_cancelled() {
                // Connections that the system has accepted would be reset by the listener's end.
                let Ok(accepted) = timeout(LAST_COMES, listener.accept()).await else {
                    self.listener = None;
                    self.connections.closed.cancel();
                    break;
                };
                accepted
            } else {
                tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = closing.cancelled() => continue,
                }
            };
            match accepted {
                Ok((stream, peer)) => return (self.connections.add(self.secured(stream)), peer),
                Err(error) if of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "connection not accepted");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
        pending().await
    }

    /// Returns the connections as an endless stream, for tonic's `serve_with_incoming_shutdown`.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        unfold(self, |mut listener| async move {
            let (connection, _peer) = listener.accept().await;
            Some((Ok(connection), listener))
        })
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::new(ListeningSocket::Tcp(listener))
    }
}

#[cfg(unix)]
impl From<tokio::net::UnixListener> for Listener {
    fn from(listener: tokio::net::UnixListener) -> Self {
        Self::new(ListeningSocket::Unix(listener))
    }
}

impl Connections {
    fn new() -> Self {
        Self {
            cut: CancellationToken::new(),
            open: Arc::new(watch::Sender::new(0)),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
        }
    }

    fn add(&self, stream: Socket) -> Connection {
        // One token each: all connections would contend for the lock of a common one at every read.
        let cut = self.cut.child_token();
        Connection {
            stream,
            cut_read: Box::pin(cut.clone().cancelled_owned()),
            cut_write: Box::pin(cut.cancelled_owned()),
            lingers: None,
            _open: Open::new(&self.open),
        }
    }

    /// Returns the number of open connections.
    #[must_use]
    pub fn n_open(&self) -> usize {
        *self.open.borrow()
    }

    /// Closes the listener after it has accepted the waiting connections.
    ///
    /// None of them is reset, and later ones are refused, which every client can tell from a lost
    /// request. A server that does not wait in [`Listener::accept`] must drop the listener itself.
    pub fn stop_accepting(&self) {
        self.closing.cancel();
    }

    /// Waits until none is open; cuts the open ones at the deadline, and returns their number.
    ///
    /// The server must have stopped accepting before.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, nothing is cut.
    pub async fn drain(&self, deadline: Duration) -> usize {
        match timeout(deadline, self.none_open()).await {
            Ok(()) => 0,
            Err(_elapsed) => {
                let open = self.n_open();
                self.abort();
                open
            }
        }
    }

    /// Ends the open connections immediately.
    pub fn abort(&self) {
        self.cut.cancel();
    }

    /// Waits until the listener is closed and none is open. Cancel safe.
    pub(crate) async fn quiet(&self) {
        self.closed.cancelled().await;
        self.none_open().await;
    }

    /// Waits until none is open. Cancel safe.
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

impl Connection {
    /// Returns the address of the peer.
    ///
    /// # Errors
    ///
    /// The system's, for a connection that has ended, and `Unsupported` for a unix socket.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Returns the local address.
    ///
    /// # Errors
    ///
    /// The system's, for a connection that has ended, and `Unsupported` for a unix socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    fn writable(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut Socket>> {
        match self.cut_write.as_mut().poll(context) {
            Poll::Ready(()) => Err(cut()),
            Poll::Pending => Ok(Pin::new(&mut self.stream)),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.cut_read.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(cut())),
            Poll::Pending => pin!(&mut self.stream).poll_read(context, buffer),
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

    /// Closed with unread bytes, a connection is reset, and the reset overtakes the last bytes sent: the
    /// peer would never read the GOAWAY that names its unprocessed requests.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let lingers = match &mut this.lingers {
            Some(lingers) => lingers,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                this.lingers.insert(Box::pin(sleep(LINGER)))
            }
        };
        if this.cut_write.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(cut()));
        }
        // Before the reads: a fast sender must not keep it open.
        if lingers.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut unread = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut unread);
            match Pin::new(&mut this.stream).poll_read(context, &mut buffer) {
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
        f.debug_struct("Connection").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// The peer was gone before the accept.
fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut at the end of the drain")
}

/// Long enough for a poll of the system; shorter than the gaps between a busy server's connections,
/// which would never let the accepting end.
const LAST_COMES: Duration = Duration::from_millis(1);
/// A few round trips, until the peer has read that the connection closes.
const LINGER: Duration = Duration::from_millis(500);
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
