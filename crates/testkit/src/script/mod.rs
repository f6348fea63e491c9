//! An HTTP server with a script.
//!
//! It answers in order, slowly, in pieces, badly or never.

mod reply;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::{Mutex as AsyncMutex, mpsc, watch},
};
use tower_sd_core::TaskGroup;

pub use self::reply::Reply;

/// An HTTP/1.1 server on loopback that records requests and answers by script.
///
/// Made by [`start`](Self::start), each request takes the next [`Reply`] that was queued, and
/// **waits** for one when there is none, as a blocking query does: a test answers it later. Made by
/// [`answering`](Self::answering), a closure decides.
///
/// ```
/// use tower_sd_testkit::script::{Reply, Script};
/// use tower_sd_testkit::wire::request;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let script = Script::start().await?;
/// script.reply(Reply::new(503).header("retry-after", "1").body("no leader"));
///
/// let answer = request(script.address(), "GET", "/v1/status/leader?stale", "").await?;
/// assert_eq!((answer.status, answer.body.as_str()), (503, "no leader"));
/// assert_eq!(script.next().await.target, "/v1/status/leader?stale");
/// # Ok(())
/// # }
/// ```
///
/// # Drop
///
/// Its connections end.
pub struct Script {
    address: SocketAddr,
    shared: Arc<Shared>,
    replies: mpsc::UnboundedSender<Reply>,
    n_seen: AtomicUsize,
    tasks: TaskGroup,
}

/// A request that a [`Script`] has got.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Received {
    /// `"GET"`.
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

struct Shared {
    received: watch::Sender<Vec<Received>>,
    answer: Answer,
    n_connections: AtomicUsize,
    n_accepted: AtomicUsize,
}

enum Answer {
    Queue(AsyncMutex<mpsc::UnboundedReceiver<Reply>>),
    Closure(Mutex<Closure>),
}

struct Closure(Box<dyn FnMut(&Received) -> Reply + Send>);

impl Script {
    /// A server whose replies are queued by [`reply`](Self::reply).
    ///
    /// # Errors
    ///
    /// Loopback cannot be listened on.
    pub async fn start() -> io::Result<Self> {
        let (replies, queue) = mpsc::unbounded_channel();
        Self::listen(replies, Answer::Queue(AsyncMutex::new(queue))).await
    }

    /// A server that sends the replies of `answer`.
    ///
    /// # Errors
    ///
    /// Loopback cannot be listened on.
    pub async fn answering(
        answer: impl FnMut(&Received) -> Reply + Send + 'static,
    ) -> io::Result<Self> {
        let (replies, _nobody) = mpsc::unbounded_channel();
        Self::listen(replies, Answer::Closure(Mutex::new(Closure(Box::new(answer))))).await
    }

    /// Queues the answer to the next request that has none.
    ///
    /// # Panics
    ///
    /// Where a closure answers.
    pub fn reply(&self, reply: Reply) {
        assert!(self.replies.send(reply).is_ok(), "a script made by answering() has no queue");
    }

    /// Waits for the next request: each is returned once, in the order of arrival.
    ///
    /// # Panics
    ///
    /// Never: requests come for as long as the script lives.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn next(&self) -> Received {
        let mut received = self.shared.received.subscribe();
        let n_seen = self.n_seen.load(Relaxed);
        let found = received.wait_for(|list| list.len() > n_seen).await;
        let next = found.expect("the sender is in self")[n_seen].clone();
        self.n_seen.store(n_seen + 1, Relaxed);
        next
    }

    /// Every request so far, those that wait for an answer included.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.borrow().clone()
    }

    /// Connections that are open now.
    pub fn n_connections(&self) -> usize {
        self.shared.n_connections.load(Relaxed)
    }

    /// Connections that it has accepted so far.
    pub fn n_accepted(&self) -> usize {
        self.shared.n_accepted.load(Relaxed)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As `http://127.0.0.1:20000`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends its connections, and waits for that.
    pub async fn close(&self) {
        self.tasks.close().await;
    }

    async fn listen(replies: mpsc::UnboundedSender<Reply>, answer: Answer) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            received: watch::Sender::new(Vec::new()),
            answer,
            n_connections: AtomicUsize::new(0),
            n_accepted: AtomicUsize::new(0),
        });
        let tasks = TaskGroup::new();
        let server = Arc::clone(&shared);
        tasks.spawn(|stop| async move {
            // Those of the connections, which end with this task.
            let connections = TaskGroup::new();
            loop {
                select! {
                    biased;
                    () = stop.requested() => break,
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        let server = Arc::clone(&server);
                        connections.spawn(|stop| async move {
                            select! {
                                () = stop.requested() => {}
                                () = serve(stream, server) => {}
                            }
                        });
                    },
                }
            }
            connections.close().await;
        });
        Ok(Self { address, shared, replies, n_seen: AtomicUsize::new(0), tasks })
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let _open = Open::new(&shared);
    let answer = service_fn(async |request| shared.answer(request).await);
    // How a connection ends is the client's to complain about.
    let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> io::Result<reply::Response> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let target = head.uri.path_and_query();
        let received = Received {
            method: head.method.to_string(),
            target: target.map_or_else(String::new, ToString::to_string),
            headers: head.headers,
            body,
        };
        self.received.send_modify(|list| list.push(received.clone()));
        let reply = match &self.answer {
            Answer::Queue(queue) => queue.lock().await.recv().await,
            Answer::Closure(answer) => {
                let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
                Some(answer.0(&received))
            }
        };
        match reply {
            Some(reply) => reply.send().await,
            None => Err(io::Error::other("the script is gone")),
        }
    }
}

/// Counts a connection while it is open.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.n_connections.fetch_add(1, Relaxed);
        shared.n_accepted.fetch_add(1, Relaxed);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.n_connections.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("address", &self.address)
            .field("received", &self.received())
            .finish_non_exhaustive()
    }
}
