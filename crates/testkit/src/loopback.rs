//! Addresses and ports of loopback that no other process uses.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
};

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

/// Linux gives 32768 and above to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const ATTEMPTS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

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
