//! A TCP proxy with faults: what happens between a client and a registry.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    select,
    sync::watch,
    time::{Instant, sleep},
    try_join,
};
use tower_sd_core::{Shutdown, TaskGroup};

use crate::loopback::own_address;

/// A proxy on loopback in front of one server.
///
/// What it does to the bytes can be changed at any time, for connections that
/// are open as for new ones.
///
/// # Drop
///
/// Its connections end.
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    /// What the listening task has put into effect.
    applied: watch::Receiver<Fault>,
    n_open: watch::Sender<usize>,
    n_accepted: Arc<AtomicUsize>,
    n_gets: Arc<AtomicU64>,
    tasks: TaskGroup,
}

/// What a [`Proxy`] does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing bad.
    None,
    /// Every piece of data waits this long, in both directions.
    Delay(Duration),
    /// Connections are accepted and stay open, and nothing passes. What was sent meanwhile arrives
    /// later, as after a broken cable.
    BlackHole,
    /// Every byte of the server's answers has its highest bit turned over.
    Garble,
    /// The server has closed its half: the client sees the end of the answers, and can still send.
    HalfClose,
    /// Connections are closed (FIN), new ones too.
    Cut,
    /// Connections are reset (RST), new ones too.
    Reset,
    /// Connections are reset, and the port is closed.
    Refuse,
}

impl Proxy {
    /// Starts to pass connections on to `server`.
    ///
    /// # Errors
    ///
    /// Loopback cannot be listened on.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        Self::listen(own_address(), server, Duration::ZERO).await
    }

    /// Within `patience` a server that does not listen yet is waited for: a client's connect has
    /// succeeded.
    pub(crate) async fn listen(
        ip: Ipv4Addr,
        server: SocketAddr,
        patience: Duration,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = listener.local_addr()?;
        let fault = watch::Sender::new(Fault::None);
        let (applied_sender, applied) = watch::channel(Fault::None);
        let (n_open, n_accepted) = (watch::Sender::new(0), Arc::new(AtomicUsize::new(0)));
        let (n_gets, tasks) = (Arc::new(AtomicU64::new(0)), TaskGroup::new());
        let accepting = Accepting {
            server,
            patience,
            fault: fault.subscribe(),
            applied: applied_sender,
            n_open: n_open.clone(),
            n_accepted: Arc::clone(&n_accepted),
            n_gets: Arc::clone(&n_gets),
        };
        tasks.spawn(|stop| async move {
            let connections = TaskGroup::new();
            select! {
                () = stop.requested() => {}
                () = accepting.run(address, listener, &connections) => {}
            }
            connections.close().await;
        });
        Ok(Self { address, fault, applied, n_open, n_accepted, n_gets, tasks })
    }

    /// Sets what the proxy does from now on.
    ///
    /// Returns when it is in effect: connections that shall end have ended.
    ///
    /// # Panics
    ///
    /// The address of the proxy was taken by another socket while it refused connections.
    pub async fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
        let mut applied = self.applied.clone();
        let in_effect = applied.wait_for(|applied| *applied == fault).await;
        drop(in_effect.expect("the task that applies it lives as long as this"));
        if fault.ends_connections() {
            let mut n_open = self.n_open.subscribe();
            drop(n_open.wait_for(|n| *n == 0).await);
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open now.
    pub fn n_open(&self) -> usize {
        *self.n_open.borrow()
    }

    /// Connections that it has accepted so far.
    pub fn n_accepted(&self) -> usize {
        self.n_accepted.load(Relaxed)
    }

    /// The number of `GET` requests of HTTP/1 that it has passed on.
    ///
    /// Each must be sent in its own piece.
    pub fn n_gets(&self) -> u64 {
        self.n_gets.load(Relaxed)
    }

    /// Ends its connections, and waits for that.
    pub async fn close(&self) {
        self.tasks.close().await;
    }
}

impl Fault {
    fn ends_connections(self) -> bool {
        matches!(self, Self::Cut | Self::Reset | Self::Refuse)
    }
}

struct Accepting {
    server: SocketAddr,
    patience: Duration,
    fault: watch::Receiver<Fault>,
    applied: watch::Sender<Fault>,
    n_open: watch::Sender<usize>,
    n_accepted: Arc<AtomicUsize>,
    n_gets: Arc<AtomicU64>,
}

impl Accepting {
    async fn run(mut self, address: SocketAddr, first: TcpListener, connections: &TaskGroup) {
        let mut listener = Some(first);
        loop {
            let fault = *self.fault.borrow_and_update();
            match (fault, &listener) {
                (Fault::Refuse, Some(_)) => listener = None,
                (Fault::Refuse, None) | (_, Some(_)) => {}
                (_, None) => {
                    let bound = TcpListener::bind(address).await;
                    listener = Some(bound.expect("an address of our own is free again"));
                }
            }
            self.applied.send_replace(fault);
            select! {
                changed = self.fault.changed() => if changed.is_err() {
                    return;
                },
                Some(accepted) = accept(listener.as_ref()) => {
                    let Ok((client, _)) = accepted else {
                        // No descriptor is free, for example.
                        sleep(AGAIN).await;
                        continue;
                    };
                    self.n_accepted.fetch_add(1, Relaxed);
                    self.n_open.send_modify(|n| *n += 1);
                    let connection = Connection {
                        fault: self.fault.clone(),
                        n_open: self.n_open.clone(),
                        n_gets: Arc::clone(&self.n_gets),
                        patience: self.patience,
                    };
                    let server = self.server;
                    connections.spawn(|stop| async move {
                        connection.run(client, server, stop).await;
                    });
                }
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    match listener {
        Some(listener) => Some(listener.accept().await),
        None => std::future::pending().await,
    }
}

struct Connection {
    fault: watch::Receiver<Fault>,
    n_open: watch::Sender<usize>,
    n_gets: Arc<AtomicU64>,
    patience: Duration,
}

impl Connection {
    async fn run(&self, mut client: TcpStream, server: SocketAddr, stop: Shutdown) {
        let mut ending = self.fault.clone();
        let mut server_side = None;
        let end = select! {
            biased;
            () = stop.requested() => Fault::Cut,
            end = ending.wait_for(|fault| fault.ends_connections()) => {
                end.map_or(Fault::Cut, |fault| *fault)
            }
            // Whatever ended it, closing notifies the other side.
            _result = self.exchange(&mut client, server, &mut server_side) => Fault::Cut,
        };
        if end != Fault::Cut {
            for stream in [Some(&client), server_side.as_ref()].into_iter().flatten() {
                // The peer may be gone already.
                let _gone = stream.set_zero_linger();
            }
        }
    }

    async fn exchange(
        &self,
        client: &mut TcpStream,
        server: SocketAddr,
        server_side: &mut Option<TcpStream>,
    ) -> io::Result<()> {
        let mut fault = self.fault.clone();
        // A closed sender means that the proxy is going away.
        drop(fault.wait_for(|fault| *fault != Fault::BlackHole).await);
        let server = server_side.insert(self.dial(server).await?);
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let ask = async {
            self.pump(client_read, server_write, Direction::Ask).await?;
            sleep(REST).await;
            Err::<(), _>(io::Error::from(io::ErrorKind::TimedOut))
        };
        let answer = self.pump(server_read, client_write, Direction::Answer);
        // An end in one direction is passed on; a failure ends both.
        try_join!(ask, answer)?;
        Ok(())
    }

    async fn dial(&self, server: SocketAddr) -> io::Result<TcpStream> {
        let deadline = Instant::now() + self.patience;
        loop {
            match TcpStream::connect(server).await {
                Err(_refused) if Instant::now() < deadline => sleep(AGAIN).await,
                result => return result,
            }
        }
    }

    async fn pump(
        &self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        direction: Direction,
    ) -> io::Result<()> {
        let mut faults = self.fault.clone();
        let mut buffer = vec![0; BUFFER];
        loop {
            let fault = *faults.borrow_and_update();
            if fault == Fault::HalfClose && direction == Direction::Answer {
                return to.shutdown().await;
            }
            let n = select! {
                biased;
                Ok(()) = faults.changed() => continue,
                n = from.read(&mut buffer), if fault != Fault::BlackHole => n?,
            };
            if n == 0 {
                return to.shutdown().await;
            }
            let bytes = &mut buffer[..n];
            if direction == Direction::Ask && bytes.starts_with(b"GET ") {
                self.n_gets.fetch_add(1, Relaxed);
            }
            match (fault, direction) {
                (Fault::Delay(delay), _) => sleep(delay).await,
                (Fault::Garble, Direction::Answer) => {
                    bytes.iter_mut().for_each(|byte| *byte ^= 0x80);
                }
                _ => {}
            }
            to.write_all(bytes).await?;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.n_open.send_modify(|n| *n -= 1);
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Ask,
    Answer,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .field("fault", &*self.fault.borrow())
            .field("n_open", &self.n_open())
            .finish_non_exhaustive()
    }
}

const BUFFER: usize = 16 * 1024;
const AGAIN: Duration = Duration::from_millis(20);
/// What a client that has ended its half gets for the rest of the answer. Most have closed both,
/// which a proxy cannot see; and a Consul 1.8 agent keeps its half of a blocking query until the
/// wait is over.
const REST: Duration = Duration::from_millis(200);
