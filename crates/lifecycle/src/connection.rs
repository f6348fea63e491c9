//! Accepted connections, which are counted and can be aborted.

use std::{
    fmt, io, mem,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    runtime::Handle,
    sync::watch,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

/// An accepted connection of a [`Listener`](crate::Listener).
pub struct Connection {
    stream: Stream,
    addresses: Addresses,
    /// Two, because a reader and a writer may be different tasks.
    abort_read: Pin<Box<WaitForCancellationFutureOwned>>,
    abort_write: Pin<Box<WaitForCancellationFutureOwned>>,
    leaving: Pin<Box<WaitForCancellationFutureOwned>>,
    received: Received,
    /// While the server leaves and its peer is silent: the time until it counts as gone.
    silence: Option<Pin<Box<Sleep>>>,
    /// No more can be written.
    is_shut: bool,
    connections: Connections,
    _open: Open,
}

/// What the peer has sent.
#[derive(Default)]
struct Received {
    /// The first bytes.
    head: [u8; 3],
    n_head: usize,
    is_any_since_leaving: bool,
    /// There is no more.
    is_over: bool,
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
    /// The servers close idle connections.
    leaving: CancellationToken,
    open: Arc<watch::Sender<usize>>,
    lingering: TaskTracker,
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

    /// The end of a peer that is silent while the server leaves.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.received.is_any_since_leaving {
            return Poll::Pending;
        }
        ready!(self.leaving.as_mut().poll(context));
        if !self.received.is_any() {
            // As if the peer had closed it.
            return Poll::Ready(Ok(()));
        }
        if !self.received.is_http2() {
            return Poll::Pending;
        }
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(SILENCE)));
        ready!(silence.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer is silent")))
    }

    /// Sent bytes may be before the acknowledgement on a slow line.
    fn note_written(&mut self) {
        if let Some(silence) = &mut self.silence {
            silence.as_mut().reset(Instant::now() + SILENCE);
        }
    }
}

impl Received {
    fn note(&mut self, bytes: &[u8], is_full: bool, is_leaving: bool) {
        if bytes.is_empty() {
            self.is_over |= !is_full;
            return;
        }
        for (place, byte) in self.head.iter_mut().skip(self.n_head).zip(bytes) {
            *place = *byte;
            self.n_head += 1;
        }
        self.is_any_since_leaving |= is_leaving;
    }

    fn is_any(&self) -> bool {
        self.n_head > 0
    }

    /// Its preface begins with a method that HTTP/1 does not have (RFC 9113 §3.4).
    fn is_http2(&self) -> bool {
        self.head == *b"PRI"
    }
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self {
            abort: CancellationToken::new(),
            leaving: CancellationToken::new(),
            lingering: TaskTracker::new(),
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
            leaving: Box::pin(self.leaving.child_token().cancelled_owned()),
            received: Received::default(),
            silence: None,
            is_shut: false,
            connections: self.clone(),
            _open: Open::new(&self.open),
        }
    }

    /// Reads for a moment what the peer still sends.
    fn linger(&self, mut stream: Stream) {
        let Ok(runtime) = Handle::try_current() else { return };
        let (open, abort) = (Open::new(&self.open), self.abort.clone());
        let lingering = async move {
            let _open = open;
            let mut unread = [0; 4096];
            let read_all = async { while matches!(stream.read(&mut unread).await, Ok(1..)) {} };
            tokio::select! {
                () = abort.cancelled() => {}
                // Bounded: a fast sender must not keep the connection open.
                _ended = timeout(LINGER, read_all) => {}
            }
        };
        self.lingering.spawn_on(lingering, &runtime);
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

    /// Begins the end of connections whose peers send nothing.
    ///
    /// Servers cannot close these by themselves: one waits for the preface of HTTP/2, the other for
    /// the acknowledgement of its GOAWAY.
    pub(crate) fn leave(&self) {
        self.leaving.cancel();
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
        if self.abort_read.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(aborted()));
        }
        let before = buffer.filled().len();
        match self.stream.as_mut().poll_read(context, buffer) {
            Poll::Pending => self.poll_silence(context),
            Poll::Ready(read) => {
                read?;
                let (is_full, is_leaving) = (buffer.remaining() == 0, self.silence.is_some());
                self.received.note(&buffer.filled()[before..], is_full, is_leaving);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.writable(context)?.poll_write(context, bytes));
        self.note_written();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.writable(context)?.poll_write_vectored(context, parts));
        self.note_written();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writable(context)?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A peer that reads nothing keeps the end of TLS from being written.
        ready!(self.writable(context)?.poll_shutdown(context))?;
        self.is_shut = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Connection {
    /// Closed with unread bytes, a connection is reset, and the reset overtakes the last sent
    /// bytes: the peer would never read the GOAWAY that names its unprocessed requests.
    fn drop(&mut self) {
        if self.is_shut && !self.received.is_over {
            let stream = mem::replace(&mut self.stream, Box::pin(tokio::io::empty()));
            self.connections.linger(stream);
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
/// Some round trips under packet loss: a live peer acknowledges a GOAWAY within one.
const SILENCE: Duration = Duration::from_secs(5);
