//! The list of name servers, and the state of each.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hickory_resolver::{
    Hosts,
    proto::{
        op,
        rr::{Name, RecordType},
    },
};
use tokio::time::Instant;
use tower_sd_core::{Error, ErrorKind, Result};

use super::{
    answer::{Answer, Found},
    server::Server,
    system::{System, SystemOptions},
};
use crate::{BACKEND, DnsConfig, Transport};

/// The name servers in the order of queries.
pub(super) struct Servers {
    config: DnsConfig,
    /// Reads the system's configuration; tests have their own.
    read_system: fn() -> io::Result<System>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    servers: Vec<Known>,
    options: SystemOptions,
    hosts: Hosts,
    /// The time of the last read of the system's configuration.
    read_at: Option<Instant>,
}

/// A server and its record.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) server: Server,
    /// Counts the sockets' replacements: a failure of old ones does not count against new ones.
    generation: u64,
    failures: u32,
    /// When it has let a query time out last.
    silent_at: Option<Instant>,
}

/// The servers of one lookup.
pub(super) struct Current {
    pub(super) servers: Vec<Known>,
    pub(super) attempts: u32,
}

impl Servers {
    pub(super) fn new(config: DnsConfig) -> Self {
        Self::reading_from(config, System::read)
    }

    pub(super) fn reading_from(config: DnsConfig, read_system: fn() -> io::Result<System>) -> Self {
        Self { config, read_system, state: Mutex::default() }
    }

    /// The servers in their order, those that are silent behind the others.
    ///
    /// The order matters: where views of one name differ, the first server has the right one.
    pub(super) fn current(&self) -> Result<Current> {
        let mut state = self.state();
        self.follow_system(&mut state)?;
        if state.servers.is_empty() {
            state.servers = self.all(&self.config.servers, state.options)?;
        }
        let attempts = self.config.attempts.or(state.options.attempts).unwrap_or(1).max(1);
        let mut servers = state.servers.clone();
        servers.sort_by_key(Known::is_silent);
        Ok(Current { servers, attempts })
    }

    /// Records a response.
    pub(super) fn answered(&self, known: &Known) {
        let mut state = self.state();
        let Some(at) = state.position(known) else { return };
        state.servers[at].failures = 0;
    }

    /// Records a failure, and replaces the sockets and connections after several.
    ///
    /// Hickory can stay with a broken one (hickory-dns/hickory-dns#3837).
    pub(super) fn failed(&self, known: &Known, error: &Error) {
        let mut state = self.state();
        let Some(at) = state.position(known) else { return };
        let failing = &mut state.servers[at];
        failing.failures += 1;
        if error.kind() == ErrorKind::Timeout {
            failing.silent_at = Some(Instant::now());
        }
        if !failing.failures.is_multiple_of(REBUILD_AFTER) {
            return;
        }
        let address = known.server.address;
        tracing::debug!(server = %address, "connections replaced after repeated failures");
        match self.server(address, state.options) {
            Ok(server) => {
                let replaced = &mut state.servers[at];
                replaced.server = server;
                replaced.generation += 1;
            }
            Err(error) => tracing::warn!(server = %address, %error, "connections not replaced"),
        }
    }

    /// The hosts file's answer; none if name servers are given.
    ///
    /// A name that it has with the other family only has no address of this one, as in
    /// `getaddrinfo`.
    pub(super) fn in_hosts_file(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        let mut state = self.state();
        self.follow_system(&mut state).ok()?;
        let lookup = |kind| state.hosts.lookup_static_host(&op::Query::query(name.clone(), kind));
        // The file has no TTL, and may be edited at any time.
        let ttl = Duration::ZERO;
        if let Some(lookup) = lookup(kind) {
            let records = lookup.answers().iter().map(|record| record.data.clone()).collect();
            return Some(Answer::Found(Found { records, ttl, glue: Vec::new() }));
        }
        let families = [RecordType::A, RecordType::AAAA];
        families.into_iter().find_map(lookup).map(|_| Answer::Nothing { ttl })
    }

    /// Reads files, which block, but are small, local, and read at most once a second.
    fn follow_system(&self, state: &mut State) -> Result<()> {
        let now = Instant::now();
        let is_due = state.read_at.is_none_or(|read_at| now >= read_at + SYSTEM_INTERVAL);
        if !self.config.servers.is_empty() || !is_due {
            return Ok(());
        }
        let system = match (self.read_system)() {
            Ok(system) => system,
            // The file is being written, or is gone for now.
            Err(_) if !state.servers.is_empty() => {
                state.read_at = Some(now);
                return Ok(());
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => System::absent(),
            Err(cause) => return Err(unreadable(cause)),
        };
        state.read_at = Some(now);
        state.hosts = system.hosts;
        let known = state.servers.iter().map(|it| it.server.address);
        if !known.eq(system.servers.iter().copied()) || state.options != system.options {
            state.servers = self.all(&system.servers, system.options)?;
            state.options = system.options;
        }
        Ok(())
    }

    fn all(&self, addresses: &[SocketAddr], options: SystemOptions) -> Result<Vec<Known>> {
        let servers = addresses.iter().map(|address| {
            let server = self.server(*address, options)?;
            Ok(Known { server, generation: 0, failures: 0, silent_at: None })
        });
        servers.collect()
    }

    fn server(&self, address: SocketAddr, options: SystemOptions) -> Result<Server> {
        let of_system = if options.use_tcp { Transport::TcpFirst } else { Transport::UdpFirst };
        let transport = self.config.transport.unwrap_or(of_system);
        let timeout = self.config.timeout.or(options.timeout).unwrap_or(TIMEOUT);
        Server::new(address, transport, timeout.clamp(MIN_TIMEOUT, MAX_TIMEOUT))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Several queries in a row have failed, and the time of one was lost lately.
    fn is_silent(&self) -> bool {
        self.failures >= SILENT_AFTER && self.silent_at.is_some_and(|at| at.elapsed() < SILENCE)
    }
}

impl State {
    fn position(&self, wanted: &Known) -> Option<usize> {
        self.servers.iter().position(|known| {
            (known.server.address, known.generation) == (wanted.server.address, wanted.generation)
        })
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("config", &self.config).finish_non_exhaustive()
    }
}

fn unreadable(cause: io::Error) -> Error {
    Error::new(ErrorKind::Config, BACKEND, "follow")
        .with_message("the system's name servers cannot be read: name servers may be given instead")
        .with_source(cause)
        .transient()
}

/// Often enough for a laptop that changes its network.
const SYSTEM_INTERVAL: Duration = Duration::from_secs(1);
/// One or two failures are lost packets.
const REBUILD_AFTER: u32 = 3;
/// One name may be slow everywhere: its timeout alone does not count.
const SILENT_AFTER: u32 = 2;
/// A server that has restarted is the first one again after this time.
const SILENCE: Duration = Duration::from_secs(10);
/// The time of one server, if neither the caller nor the system sets one.
const TIMEOUT: Duration = Duration::from_secs(2);
/// No server answers in no time.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// The bound of a read ends a longer wait anyway, and instants cannot be as far as durations.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use tokio::time::advance;

    use super::*;

    fn addresses(servers: &Servers) -> Vec<String> {
        let current = servers.current().expect("there are some").servers;
        current.iter().map(|known| known.server.address.to_string()).collect()
    }

    fn named(n: u16) -> Servers {
        Servers::new(DnsConfig::new((1..=n).map(|port| SocketAddr::from(([127, 0, 0, 1], port)))))
    }

    fn system(servers: impl IntoIterator<Item = SocketAddr>) -> System {
        let servers = servers.into_iter().collect();
        System::new(servers, SystemOptions::default(), Hosts::default())
    }

    #[tokio::test(start_paused = true)]
    async fn unreadable_system_is_read_once_a_second() {
        static N_READS: AtomicU16 = AtomicU16::new(0);
        let servers = Servers::reading_from(DnsConfig::default(), || {
            match N_READS.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(system([])),
                _ => Err(io::Error::other("it is being written")),
            }
        });
        servers.current().expect("the first");
        advance(SYSTEM_INTERVAL).await;
        for _ in 0..100 {
            servers.current().expect("the first stay");
        }
        assert_eq!(N_READS.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn timeout_without_sense_is_clamped() {
        for timeout in [Duration::ZERO, Duration::MAX] {
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let servers = Servers::new(DnsConfig::new([address]).timeout(timeout));
            let server = servers.current().expect("one").servers[0].server.clone();
            assert!((MIN_TIMEOUT..=MAX_TIMEOUT).contains(&server.timeout), "{timeout:?}");
        }
    }

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, BACKEND, "follow")
    }

    /// systemd/systemd#5755 and #21174 stay with another server, and with its view of a zone.
    #[tokio::test(start_paused = true)]
    async fn silent_server_is_the_first_one_again_after_ten_seconds() {
        let servers = named(2);
        let first = servers.current().expect("two").servers[0].clone();
        let is_first = || addresses(&servers)[0] == "127.0.0.1:1";
        let timed_out = || servers.failed(&first, &error(ErrorKind::Timeout));
        timed_out();
        servers.answered(&first);
        timed_out();
        assert!(is_first(), "one query is no proof");
        timed_out();
        assert!(!is_first());
        advance(SILENCE).await;
        assert!(is_first());
        servers.failed(&first, &error(ErrorKind::Unavailable));
        assert!(is_first(), "a response costs no time");
    }

    #[test]
    fn server_is_made_anew_after_three_failures_on_end() {
        let servers = named(1);
        let first = servers.current().expect("one").servers[0].clone();
        let generation = || servers.current().expect("one").servers[0].generation;
        let fails = || servers.failed(&first, &error(ErrorKind::Unavailable));
        fails();
        fails();
        servers.answered(&first);
        fails();
        fails();
        assert_eq!(generation(), 0, "an answer in between starts the count again");
        fails();
        assert_eq!(generation(), 1);
        fails();
        assert_eq!(generation(), 1, "what the old one did is not held against the new one");
    }

    #[tokio::test(start_paused = true)]
    async fn change_of_the_systems_servers_is_seen_within_a_second() {
        static LAST: AtomicU16 = AtomicU16::new(1);
        let servers =
            Servers::reading_from(DnsConfig::default(), || match LAST.load(Ordering::SeqCst) {
                0 => Err(io::ErrorKind::NotFound.into()),
                last => Ok(system([SocketAddr::from(([10, 0, 0, 1], last))])),
            });
        assert_eq!(addresses(&servers), ["10.0.0.1:1"]);
        LAST.store(2, Ordering::SeqCst);
        assert_eq!(addresses(&servers), ["10.0.0.1:1"], "at most once a second");
        advance(SYSTEM_INTERVAL).await;
        assert_eq!(addresses(&servers), ["10.0.0.1:2"]);
        LAST.store(0, Ordering::SeqCst);
        advance(SYSTEM_INTERVAL).await;
        assert_eq!(addresses(&servers), ["10.0.0.1:2"], "a file that is gone changes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn order_of_the_systems_servers_is_followed() {
        static FIRST: AtomicU16 = AtomicU16::new(1);
        let servers = Servers::reading_from(DnsConfig::default(), || {
            let first = FIRST.load(Ordering::SeqCst);
            Ok(system([first, 3 - first].map(|port| SocketAddr::from(([10, 0, 0, 1], port)))))
        });
        assert_eq!(addresses(&servers), ["10.0.0.1:1", "10.0.0.1:2"]);
        FIRST.store(2, Ordering::SeqCst);
        advance(SYSTEM_INTERVAL).await;
        assert_eq!(addresses(&servers), ["10.0.0.1:2", "10.0.0.1:1"]);
    }

    /// Nor is its connection lost, or what is known of it.
    #[tokio::test(start_paused = true)]
    async fn system_that_has_not_changed_costs_nothing() {
        let servers = Servers::reading_from(DnsConfig::default(), || {
            let servers = [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 53)));
            Ok(system(servers))
        });
        let first = servers.current().expect("two").servers[0].clone();
        for _ in 0..SILENT_AFTER {
            servers.failed(&first, &error(ErrorKind::Timeout));
        }
        advance(SYSTEM_INTERVAL).await;
        assert_eq!(addresses(&servers), ["10.0.0.2:53", "10.0.0.1:53"]);
    }

    #[test]
    fn missing_file_means_a_server_on_this_machine() {
        let read = || Err(io::ErrorKind::NotFound.into());
        let servers = Servers::reading_from(DnsConfig::default(), read);
        assert_eq!(addresses(&servers), ["127.0.0.1:53"]);
        let read = || Err(io::ErrorKind::PermissionDenied.into());
        let error = Servers::reading_from(DnsConfig::default(), read).current().err();
        assert!(error.expect("no file, no servers").is_transient(), "it may be readable soon");
    }
}
