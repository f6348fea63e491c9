//! A server over the `h2` crate.
//!
//! With it, a test can refuse, reset and go away as it likes.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, SendResponse},
};
use http::{Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
    task::JoinSet,
};
use tower_sd_balance::Instance;

/// Its connections die with it.
pub(crate) struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    leave: broadcast::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Runs `answer` on each request; a connection takes `max_streams` at a time.
    pub(crate) async fn start<F, Fut>(max_streams: u32, answer: F) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (leave, _) = broadcast::channel(1);
        let mut tasks = JoinSet::new();
        let (n_accepted, n_open, leaving) =
            (Arc::clone(&accepted), Arc::clone(&open), leave.clone());
        tasks.spawn(async move {
            let mut peers = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                n_accepted.fetch_add(1, Ordering::SeqCst);
                n_open.fetch_add(1, Ordering::SeqCst);
                let (answer, n_open) = (answer.clone(), Arc::clone(&n_open));
                let leaving = leaving.subscribe();
                peers.spawn(async move {
                    serve(stream, max_streams, answer, leaving).await;
                    n_open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, accepted, open, leave, _tasks: tasks }
    }

    /// Answers every request with `ok`.
    pub(crate) async fn polite(max_streams: u32) -> Self {
        Self::start(max_streams, async |_, reply| answer(reply, "ok")).await
    }

    /// Resets the first request with `reason`, and answers the others: how many it has seen, too.
    pub(crate) async fn resetting_the_first(reason: Reason) -> (Self, Arc<AtomicUsize>) {
        let n_seen = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&n_seen);
        let server = Self::start(100, move |_, mut reply| {
            match seen.fetch_add(1, Ordering::SeqCst) {
                0 => reply.send_reset(reason),
                _ => answer(reply, "ok"),
            }
            async {}
        });
        (server.await, n_seen)
    }

    /// Goes away by the RFC: first a warning, then what is in flight is finished.
    pub(crate) fn leave(&self) {
        self.leave.send(()).expect("a connection");
    }

    pub(crate) fn instance(&self) -> Instance {
        Instance::new(self.address.ip().to_string(), self.address.port())
    }

    pub(crate) fn n_accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn n_open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn serve<F, Fut>(
    stream: TcpStream,
    max_streams: u32,
    answer: F,
    mut leaving: broadcast::Receiver<()>,
) where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    // A GOAWAY frame would else wait for the client's kernel to confirm the one before it.
    stream.set_nodelay(true).expect("a socket");
    let mut builder = Builder::new();
    builder.max_concurrent_streams(max_streams);
    let mut peer = builder.handshake(stream).await.expect("the client uses HTTP/2");
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            Ok(()) = leaving.recv() => peer.graceful_shutdown(),
            accepted = peer.accept() => match accepted {
                Some(Ok((request, reply))) => drop(answers.spawn(answer(request, reply))),
                Some(Err(_)) | None => return,
            },
        }
    }
}

pub(crate) fn answer(mut reply: SendResponse<Bytes>, body: &'static str) {
    // The client may be gone already, which the test sees elsewhere.
    if let Ok(mut stream) = reply.send_response(Response::new(()), false) {
        stream.send_data(Bytes::from(body), true).ok();
    }
}
