//! A server that a test scripts byte by byte.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower_sd_balance::Instance;

/// A type of HTTP/2 frames.
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Its connections die with it.
pub(crate) struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// One accepted connection.
pub(crate) struct Peer {
    stream: TcpStream,
    open: Arc<AtomicUsize>,
}

impl Server {
    /// Runs `serve` on each accepted connection.
    pub(crate) async fn start<F, Fut>(serve: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        let (n_accepted, n_open) = (Arc::clone(&accepted), Arc::clone(&open));
        tasks.spawn(async move {
            let mut peers = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                n_accepted.fetch_add(1, Ordering::SeqCst);
                n_open.fetch_add(1, Ordering::SeqCst);
                let open = Arc::clone(&n_open);
                peers.spawn(serve(Peer { stream, open }));
            }
        });
        Self { address, accepted, open, _tasks: tasks }
    }

    /// Answers every request with `ok`, for as long as the client likes.
    pub(crate) async fn polite() -> Self {
        Self::start(async |mut peer| {
            while peer.request().await.is_some() {
                peer.write(OK).await;
            }
        })
        .await
    }

    /// Answers each request with its head, and its body if that is chunked.
    pub(crate) async fn echo() -> Self {
        Self::start(async |mut peer| {
            while let Some(mut told) = peer.request().await {
                if told.contains("transfer-encoding: chunked") {
                    peer.chunks(|data| told.push_str(&String::from_utf8_lossy(data))).await;
                }
                let length = told.len();
                peer.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{told}"))
                    .await;
            }
        })
        .await
    }

    pub(crate) fn instance(&self) -> Instance {
        Instance::new(self.address.ip().to_string(), self.address.port())
    }

    pub(crate) fn n_accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Connections whose peer has not gone.
    pub(crate) fn n_open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Peer {
    /// The head of the next request, its body having been read; `None` when the client is gone.
    pub(crate) async fn request(&mut self) -> Option<String> {
        let head = self.head().await?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(head)
    }

    /// The head of the next request; its body is left unread.
    pub(crate) async fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        Some(String::from_utf8(head).expect("ASCII"))
    }

    /// Reads a chunked body to its end.
    pub(crate) async fn chunks(&mut self, mut read: impl FnMut(&[u8])) {
        loop {
            let mut size = String::new();
            while !size.ends_with("\r\n") {
                match self.stream.read_u8().await {
                    Ok(byte) => size.push(char::from(byte)),
                    Err(_) => return,
                }
            }
            let size = usize::from_str_radix(size.trim_end(), 16).expect("a size");
            let mut data = vec![0; size + 2];
            if self.stream.read_exact(&mut data).await.is_err() || size == 0 {
                return;
            }
            read(&data[..size]);
        }
    }

    pub(crate) async fn write(&mut self, bytes: &str) {
        self.write_bytes(bytes.as_bytes()).await;
    }

    pub(crate) async fn write_bytes(&mut self, bytes: &[u8]) {
        // The client may be gone already, which the test sees elsewhere.
        self.stream.write_all(bytes).await.ok();
    }

    /// Reads HTTP/2 frames until the head of a request, which the client sends after its preface.
    pub(crate) async fn until_headers(&mut self) {
        self.preface().await;
        while self.frame().await.is_some_and(|(kind, _)| kind != HEADERS) {}
    }

    pub(crate) async fn preface(&mut self) {
        self.stream.read_exact(&mut [0; 24]).await.expect("a preface");
    }

    /// The type and the stream of the next HTTP/2 frame.
    pub(crate) async fn frame(&mut self) -> Option<(u8, [u8; 4])> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("short")];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((head[3], [head[5], head[6], head[7], head[8]]))
    }

    /// Closes as a crashed machine does: with a reset.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("a socket");
    }

    /// Waits until the client has closed.
    pub(crate) async fn closed(&mut self) {
        while self.stream.read_u8().await.is_ok() {}
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}
