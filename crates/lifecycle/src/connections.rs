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
    net::{TcpListener, TcpStream, ToSocketAddrs},
    sync::watch,
    time::{Sleep, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// A TCP listener whose connections are counted, and can be cut.
///
/// Servers spawn a task per connection and keep no handle: without this, a request that never ends would outlive its
/// server for as long as the process does.
#[derive(Debug)]
pub struct Listener {
    /// `None` when it has been told to accept no more.
    listener: Option<TcpListener>,
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
    stream: TcpStream,
    /// Two, because a reader and a writer may be different tasks.
    cut_read: Pin<Box<WaitForCancellationFutureOwned>>,
    cut_write: Pin<Box<WaitForCancellationFutureOwned>>,
    /// We have said all; how long we still listen.
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
    /// The system refuses it: the port is taken, say.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::from)
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.listener {
            Some(listener) => listener.local_addr(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Its connections, also after it is gone.
    #[must_use]
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Waits for the next connection, for ever after [`Connections::stop_accepting`].
    ///
    /// What goes wrong with one is no matter to the others; when the system has no descriptor left, it tries again after a
    /// second, because another connection has to end first.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn accept(&mut self) -> (Connection, SocketAddr) {
        while let Some(listener) = &self.listener {
            let closing = &self.connections.closing;
            let accepted = if closing.is_cancelled() {
                // What the system has accepted for us would be reset when the listener is closed.
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
                Ok((stream, peer)) => return (self.connections.add(stream), peer),
                Err(error) if of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
        pending().await
    }

    /// The connections as a stream that never ends, for tonic's `serve_with_incoming_shutdown`.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        unfold(self, |mut listener| async move {
            let (connection, _peer) = listener.accept().await;
            Some((Ok(connection), listener))
        })
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        let connections = Connections::new();
        let _closed_on_drop = connections.closed.clone().drop_guard();
        Self { listener: Some(listener), connections, _closed_on_drop }
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

    fn add(&self, stream: TcpStream) -> Connection {
        // Answers are small and complete: without this they wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        // One token each: asking the common one at every read would make all connections wait for its lock.
        let cut = self.cut.child_token();
        Connection {
            stream,
            cut_read: Box::pin(cut.clone().cancelled_owned()),
            cut_write: Box::pin(cut.cancelled_owned()),
            lingers: None,
            _open: Open::new(&self.open),
        }
    }

    /// How many are open.
    #[must_use]
    pub fn n_open(&self) -> usize {
        *self.open.borrow()
    }

    /// Has the listener closed as soon as it has accepted what waits for that: nobody is reset, and who comes later is
    /// refused, which every client can tell from a request that was lost.
    ///
    /// A server that does not wait in [`Listener::accept`] has to drop the listener itself.
    pub fn stop_accepting(&self) {
        self.closing.cancel();
    }

    /// Waits until none is open, and cuts those that are at the deadline; returns how many those were.
    ///
    /// The server has to have been told to accept nothing more.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, nothing is cut.
    pub async fn drain(&self, deadline: Duration) -> usize {
        match timeout(deadline, self.none_open()).await {
            Ok(()) => 0,
            Err(_elapsed) => {
                let open = self.n_open();
                self.cut();
                open
            }
        }
    }

    /// Ends those that are open, now and in the middle of what they do.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Waits until it listens no more and none is open. Cancel safe.
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
    /// Whom it is with.
    ///
    /// # Errors
    ///
    /// The system does not know any more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Through which of our addresses.
    ///
    /// # Errors
    ///
    /// The system does not know any more.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    fn writable(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
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

    /// Closed with bytes unread, a connection is reset, and the reset overtakes what was said last: the peer would never read
    /// the GOAWAY by which it knows what to send elsewhere.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let lingers = match &mut this.lingers {
            Some(lingers) => lingers,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                this.lingers.insert(Box::pin(sleep(LINGER)))
            }
        };
        let mut unread = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut unread);
            match Pin::new(&mut this.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                // The peer has closed it, too.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return lingers.as_mut().poll(context).map(Ok),
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// The peer was gone before we looked.
fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut at the end of the drain")
}

/// Long enough to ask the system whether somebody waits; shorter than the pauses between connections of a busy server, for
/// which there would be no end of accepting.
const LAST_COMES: Duration = Duration::from_millis(1);
/// A few round trips: what a peer sends until it has read that we close.
const LINGER: Duration = Duration::from_millis(500);
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
