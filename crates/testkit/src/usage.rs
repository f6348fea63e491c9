//! What this process uses: a leak is what is more after a test than before it.

use std::{collections::HashSet, fs, io, net::SocketAddr, path::Path};

use tokio::runtime::Handle;

/// Tasks that are alive on the current runtime.
///
/// Deterministic, unlike the two others: a task that has ended is not counted.
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// TCP sockets of this process, listening ones included.
///
/// # Errors
///
/// The system does not have Linux's `/proc`.
pub fn tcp_sockets() -> io::Result<usize> {
    count_sockets(|_remote| true)
}

/// TCP connections of this process to `address`, in whatever state.
///
/// # Errors
///
/// The system does not have Linux's `/proc`.
pub fn connections_to(address: SocketAddr) -> io::Result<usize> {
    let wanted = proc_form(address);
    count_sockets(|remote| remote == wanted)
}

/// Threads of this process.
///
/// # Errors
///
/// The system does not have Linux's `/proc`.
pub fn threads() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// Memory of this process, in KiB, as far as it is resident.
///
/// # Errors
///
/// The system does not have Linux's `/proc`.
pub fn resident_kib() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).ok_or_else(|| io::Error::other("no VmRSS"))
}

/// Processor time of this process, in milliseconds, user and system.
///
/// It grows in steps of 10 ms.
///
/// # Errors
///
/// The system does not have Linux's `/proc`.
pub fn cpu_ms() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may have spaces.
    let (_, rest) = stat.rsplit_once(')').unwrap_or_default();
    let ticks = rest.split_whitespace().skip(USER_TIME).take(2).map(str::parse::<u64>);
    let sum: Option<u64> = ticks.map(Result::ok).sum();
    Ok(sum.ok_or_else(|| io::Error::other("no times"))? * TICK_MS)
}

/// Sockets are files of the process, and rows of its network's tables; the inode joins them.
fn count_sockets(wanted: impl Fn(&str) -> bool) -> io::Result<usize> {
    let mut open = HashSet::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        // The folder itself is open while it is read, and closed when its link is.
        if let Ok(link) = fs::read_link(entry?.path()) {
            open.extend(socket_inode(&link));
        }
    }
    let mut count = 0;
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let text = fs::read_to_string(table)?;
        let rows = text.lines().skip(1).filter_map(row);
        count += rows.filter(|(remote, inode)| wanted(remote) && open.contains(*inode)).count();
    }
    Ok(count)
}

/// Of `socket:[4026531840]`.
fn socket_inode(link: &Path) -> Option<String> {
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    Some(inode.to_owned())
}

/// Remote address and inode: the third and the tenth column.
fn row(line: &str) -> Option<(&str, &str)> {
    let mut columns = line.split_whitespace();
    Some((columns.nth(2)?, columns.nth(6)?))
}

/// As `/proc/net/tcp` has it: each 32 bits of the address as a number of the machine, in
/// hexadecimal digits.
fn proc_form(address: SocketAddr) -> String {
    let octets = match address {
        SocketAddr::V4(address) => address.ip().octets().to_vec(),
        SocketAddr::V6(address) => address.ip().octets().to_vec(),
    };
    let words = octets.chunks_exact(4).map(|word| {
        let word = word.try_into().expect("four octets");
        format!("{:08X}", u32::from_ne_bytes(word))
    });
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

/// The column of the user's time, behind the name. That of the system follows.
const USER_TIME: usize = 11;
/// Linux shows 100 ticks a second on every architecture that Rust supports.
const TICK_MS: u64 = 10;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_are_counted_by_their_remote_address() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else {
                // A machine without IPv6.
                assert!(host.contains("::"), "IPv4 is everywhere");
                continue;
            };
            let address = listener.local_addr().expect("bound");
            assert_eq!(connections_to(address).expect("Linux"), 0);
            let streams = [(); 3].map(|()| TcpStream::connect(address).expect("it listens"));
            assert_eq!(connections_to(address).expect("Linux"), 3);
            assert!(tcp_sockets().expect("Linux") >= 4);
            drop(streams);
            assert_eq!(connections_to(address).expect("Linux"), 0);
        }
    }

    #[test]
    fn memory_and_time_are_those_of_the_process() {
        let before = resident_kib().expect("Linux");
        let block = vec![1_u8; 64 << 20];
        assert!(resident_kib().expect("Linux") >= before + (32 << 10), "{} bytes", block.len());
        let busy = cpu_ms().expect("Linux");
        while cpu_ms().expect("Linux") < busy + 30 {}
    }

    #[tokio::test]
    async fn alive_tasks_are_those_that_have_not_ended() {
        let tasks = tower_sd_core::TaskGroup::new();
        assert_eq!(alive_tasks(), 0);
        tasks.spawn(|stop| async move { stop.requested().await });
        assert_eq!(alive_tasks(), 1);
        tasks.close().await;
        assert_eq!(alive_tasks(), 0);
        assert!(threads().expect("Linux") >= 1);
    }
}
