//! Sockets and servers for tests, on loopback.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};
use tower_sd_core::{TaskGroup, async_trait};

use crate::{Connector, Io, Target};

/// Resolves each name to the same addresses, and connects by TCP.
#[derive(Debug)]
pub(super) struct Hosts(pub(super) Vec<SocketAddr>);

#[async_trait]
impl Connector for Hosts {
    async fn resolve(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(self.0.clone())
    }

    async fn connect(&self, _target: &Target, address: SocketAddr) -> io::Result<Io> {
        Ok(TcpStream::connect(address).await?.into())
    }
}

/// A listener whose accept queue is full: a connect never ends.
#[derive(Debug)]
pub(super) struct BlackHole {
    pub(super) address: SocketAddr,
    _listener: Socket,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    pub(super) async fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        listener.bind(&any.into()).expect("a free port");
        listener.listen(0).expect("listens");
        let address = listener.local_addr().expect("bound").as_socket().expect("IPv4");
        let mut queued = Vec::new();
        loop {
            match timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
                Ok(connected) => queued.push(connected.expect("not refused")),
                Err(_) => return Self { address, _listener: listener, _queued: queued },
            }
            assert!(queued.len() < 100, "the queue has an end");
        }
    }
}

/// An address that refuses connections. It is bound, and no other socket gets it, until the process
/// ends.
pub(super) fn refusing() -> SocketAddr {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = socket.local_addr().expect("bound");
    std::mem::forget(socket);
    address
}

/// Accepts connections, gives each to `serve`, and counts them.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) n_connections: Arc<AtomicUsize>,
    _tasks: TaskGroup,
}

impl Server {
    pub(super) async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let n_connections = Arc::new(AtomicUsize::new(0));
        let (tasks, counter) = (TaskGroup::new(), Arc::clone(&n_connections));
        tasks.spawn(|stop| async move {
            let connections = TaskGroup::new();
            loop {
                let accepted = tokio::select! {
                    () = stop.requested() => return,
                    accepted = listener.accept() => accepted,
                };
                counter.fetch_add(1, Ordering::SeqCst);
                let serving = serve(accepted.expect("accepts").0);
                connections.spawn(|stop| async move {
                    tokio::select! {
                        () = stop.requested() => {}
                        () = serving => {}
                    }
                });
            }
        });
        Self { address, n_connections, _tasks: tasks }
    }

    pub(super) fn target(&self) -> Target {
        Target::host(self.address.ip().to_string(), self.address.port())
    }

    pub(super) fn n_connections(&self) -> usize {
        self.n_connections.load(Ordering::SeqCst)
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
