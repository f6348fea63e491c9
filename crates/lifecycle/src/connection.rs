//! Accepted connections, which are counted and can be aborted.

use std::{
    fmt, io, mem,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
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
    leaving: CancellationToken,
    /// That of the reader.
    left: Pin<Box<WaitForCancellationFutureOwned>>,
    received: Received,
    /// Once a server that leaves has written a PING: the time until its peer counts as gone.
    silence: Option<Pin<Box<Sleep>>>,
    /// To be woken when the silence begins.
    reader: Option<Waker>,
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
    /// Any since the PING of a server that leaves.
    is_any_since_ping: bool,
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
        if self.received.is_any_since_ping {
            return Poll::Pending;
        }
        ready!(self.left.as_mut().poll(context));
        if !self.received.is_any() {
            // As if the peer had closed it.
            return Poll::Ready(Ok(()));
        }
        let Some(silence) = &mut self.silence else {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        ready!(silence.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer is silent")))
    }

    /// A peer whose requests are in flight has nothing to send, until it must acknowledge a PING.
    fn note_written(&mut self, bytes: &[u8]) {
        if let Some(silence) = &mut self.silence {
            // They may be before the acknowledgement on a slow line.
            silence.as_mut().reset(Instant::now() + SILENCE);
            return;
        }
        if !self.received.is_http2() || !self.leaving.is_cancelled() || !has_ping(bytes) {
            return;
        }
        self.silence = Some(Box::pin(sleep(SILENCE)));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Received {
    fn note(&mut self, bytes: &[u8], is_full: bool, is_after_ping: bool) {
        if bytes.is_empty() {
            self.is_over |= !is_full;
            return;
        }
        for (place, byte) in self.head.iter_mut().skip(self.n_head).zip(bytes) {
            *place = *byte;
            self.n_head += 1;
        }
        self.is_any_since_ping |= is_after_ping;
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
        let (abort, leaving) = (self.abort.child_token(), self.leaving.child_token());
        Connection {
            stream,
            addresses,
            abort_read: Box::pin(abort.clone().cancelled_owned()),
            abort_write: Box::pin(abort.cancelled_owned()),
            left: Box::pin(leaving.clone().cancelled_owned()),
            leaving,
            received: Received::default(),
            silence: None,
            reader: None,
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
    /// the acknowledgement of the PING after its GOAWAY.
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
                let (is_full, is_after_ping) = (buffer.remaining() == 0, self.silence.is_some());
                self.received.note(&buffer.filled()[before..], is_full, is_after_ping);
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
        let written = ready!(self.writable(context)?.poll_write(context, bytes))?;
        self.note_written(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.writable(context)?.poll_write_vectored(context, parts))?;
        let mut rest = written;
        for part in parts {
            let n = rest.min(part.len());
            self.note_written(&part[..n]);
            rest -= n;
        }
        Poll::Ready(Ok(written))
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

/// Whether the server requests an acknowledgement, as it does with its first GOAWAY.
fn has_ping(written: &[u8]) -> bool {
    written.windows(PING.len()).any(|frame| frame == PING)
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "aborted at the end of the drain")
}

/// The head of a PING that is no acknowledgement itself (RFC 9113 §6.7).
const PING: [u8; 9] = [0, 0, 8, 6, 0, 0, 0, 0, 0];
/// A few round trips, until the peer has read that the connection closes.
const LINGER: Duration = Duration::from_millis(500);
/// Some round trips under packet loss: a live peer acknowledges a PING within one.
const SILENCE: Duration = Duration::from_secs(5);
