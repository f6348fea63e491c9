//! Addresses and ports of loopback that are free, refuse connects, or are silent.

use std::{
    io, mem,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tower_sd_core::Instance;

use crate::usage::connections_to;

/// An address of 127.0.0.0/8 that most likely no other process uses.
///
/// A server that is stopped finds its ports free
/// when it is started again; 127.0.0.1 where the system has no other.
pub fn own_address() -> Ipv4Addr {
    let own =
        Ipv4Addr::new(127, fastrand::u8(1..=254), fastrand::u8(1..=254), fastrand::u8(1..=254));
    match TcpListener::bind((own, 0)) {
        Ok(_) => own,
        Err(_) => Ipv4Addr::LOCALHOST,
    }
}

/// `N` different ports of `address` that are free for TCP and UDP.
///
/// They are outside of the range that the system gives to outgoing
/// connections.
///
/// # Errors
///
/// No free ones are found.
pub fn free_ports<const N: usize>(address: Ipv4Addr) -> io::Result<[u16; N]> {
    let mut held = Vec::new();
    for _ in 0..ATTEMPTS {
        if held.len() == N {
            break;
        }
        let address = SocketAddr::from((address, fastrand::u16(PORTS)));
        if let (Ok(tcp), Ok(udp)) = (TcpListener::bind(address), UdpSocket::bind(address)) {
            // Held until all are found: no port comes twice.
            held.push((address.port(), tcp, udp));
        }
    }
    let ports: Vec<u16> = held.iter().map(|(port, ..)| *port).collect();
    let found = ports.len();
    ports.try_into().map_err(|_ports| io::Error::other(format!("found {found} free ports of {N}")))
}

/// An instance whose port refuses connections.
///
/// The port is bound, so that no other socket gets it, until the process ends.
///
/// # Errors
///
/// Loopback cannot be bound.
pub fn refusing() -> io::Result<Instance> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let port = socket.local_addr()?.port();
    mem::forget(socket);
    Ok(Instance::new("127.0.0.1", port))
}

/// An instance whose connects get no answer, as those of a host that vanished.
///
/// The queue of a listener is full, so that the system drops what comes.
#[derive(Debug)]
pub struct BlackHole {
    address: SocketAddr,
    _listener: tokio::net::TcpListener,
    queued: Vec<TcpStream>,
}

impl BlackHole {
    /// Fills the queue.
    ///
    /// # Errors
    ///
    /// Loopback cannot be listened on, or its queue has no end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn open() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(1)?;
        let address = listener.local_addr()?;
        let mut queued = Vec::new();
        while let Ok(stream) = timeout(NO_ANSWER, TcpStream::connect(address)).await {
            queued.push(stream?);
            if queued.len() > QUEUE {
                return Err(io::Error::other("the queue of connections has no end"));
            }
        }
        Ok(Self { address, _listener: listener, queued })
    }

    /// The instance.
    pub fn instance(&self) -> Instance {
        Instance::new("127.0.0.1", self.address.port())
    }

    /// Sockets of this process that connect to it now.
    ///
    /// # Errors
    ///
    /// The system does not have Linux's `/proc`.
    pub fn n_dials(&self) -> io::Result<usize> {
        Ok(connections_to(self.address)?.saturating_sub(self.queued.len()))
    }
}

/// Linux answers a connect on loopback within microseconds.
const NO_ANSWER: Duration = Duration::from_millis(300);
const QUEUE: usize = 100;
/// Linux gives 32768 and above to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const ATTEMPTS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refusing_port_is_taken_and_black_hole_answers_nothing() {
        let refusing = refusing().expect("loopback");
        let address = (Ipv4Addr::LOCALHOST, refusing.port());
        let error = TcpStream::connect(address).await.expect_err("it does not listen");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        TcpListener::bind(address).expect_err("it is taken");
        let hole = BlackHole::open().await.expect("loopback");
        let dial = TcpStream::connect((Ipv4Addr::LOCALHOST, hole.instance().port()));
        let during = async {
            tokio::task::yield_now().await;
            hole.n_dials().expect("Linux")
        };
        let (dialled, n_dials) = tokio::join!(timeout(NO_ANSWER, dial), during);
        assert_eq!((dialled.is_err(), n_dials), (true, 1));
        assert_eq!(hole.n_dials().expect("Linux"), 0);
    }

    #[test]
    fn free_ports_are_different_and_can_be_bound() {
        let address = own_address();
        let mut ports = free_ports::<20>(address).expect("there are free ports");
        for port in ports {
            TcpListener::bind((address, port)).expect("it is free");
        }
        ports.sort_unstable();
        assert!(ports.windows(2).all(|pair| pair[0] != pair[1]), "{ports:?}");
    }
}
