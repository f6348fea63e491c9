//! Which name servers there are, and the state of each.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hickory_resolver::{
    Hosts, NameServerPool, PoolContext, TlsConfig,
    config::{ConnectionConfig, NameServerConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::op,
    system_conf::read_system_conf,
};
use tokio::{sync::Semaphore, time::Instant};
use tower_sd_core::{Error, ErrorKind, Result};

use super::answer::Found;
use crate::{BACKEND, DnsConfig, Transport};

/// The name servers in the order in which they are asked.
pub(super) struct Servers {
    config: DnsConfig,
    /// How the system's configuration is learned; tests say it themselves.
    read_system: fn() -> Result<System>,
    state: Mutex<State>,
}

/// What the system's configuration says.
pub(super) struct System {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) hosts: Hosts,
}

#[derive(Default)]
struct State {
    servers: Vec<Server>,
    hosts: Hosts,
    /// When the system's configuration was last looked at.
    read_at: Option<Instant>,
}

/// One name server. Its sockets and connections are hickory's.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) pool: NameServerPool<TokioRuntimeProvider>,
    /// One permit per question that is under way.
    pub(super) room: Arc<Semaphore>,
    /// Counts the pools that were made for it, so that what an old one did is not held against a new one.
    generation: u64,
    failures: u32,
}

impl Servers {
    pub(super) fn new(config: DnsConfig) -> Self {
        Self::reading_from(config, read_system)
    }

    pub(super) fn reading_from(config: DnsConfig, read_system: fn() -> Result<System>) -> Self {
        Self { config, read_system, state: Mutex::default() }
    }

    pub(super) fn config(&self) -> &DnsConfig {
        &self.config
    }

    /// The servers, the one that answered last in front.
    pub(super) fn current(&self) -> Result<Vec<Server>> {
        let mut state = self.state();
        self.look_at_system(&mut state)?;
        if state.servers.is_empty() {
            for address in &self.config.servers {
                state.servers.push(self.server(*address, 0)?);
            }
        }
        Ok(state.servers.clone())
    }

    /// One that knows the records is asked first from now on.
    pub(super) fn answered(&self, server: &Server, knows: bool) {
        let mut state = self.state();
        let Some(at) = state.position(server) else { return };
        state.servers[at].failures = 0;
        if knows {
            state.servers[..=at].rotate_right(1);
        }
    }

    /// After several failures on end its sockets and connections are made anew: hickory can stay with a broken one
    /// (hickory-dns/hickory-dns#3837).
    pub(super) fn failed(&self, server: &Server) {
        let mut state = self.state();
        let Some(at) = state.position(server) else { return };
        state.servers[at].failures += 1;
        if state.servers[at].failures < REBUILD_AFTER {
            return;
        }
        tracing::debug!(server = %server.address, "made anew after repeated failures");
        match self.server(server.address, server.generation + 1) {
            Ok(new) => state.servers[at] = new,
            Err(error) => tracing::warn!(%error, "cannot be made anew"),
        }
    }

    pub(super) fn in_hosts_file(&self, query: &op::Query) -> Option<Found> {
        let mut state = self.state();
        self.look_at_system(&mut state).ok()?;
        let lookup = state.hosts.lookup_static_host(query)?;
        let records = lookup.answers().iter().map(|record| record.data.clone()).collect();
        // The file has no TTL, and may be edited at any time.
        Some(Found { records, ttl: Duration::ZERO, glue: Vec::new() })
    }

    /// Reads files, which block, but are small, local, and read at most once a second.
    fn look_at_system(&self, state: &mut State) -> Result<()> {
        let now = Instant::now();
        let is_due = state.read_at.is_none_or(|read_at| now >= read_at + SYSTEM_INTERVAL);
        if !self.config.servers.is_empty() || !is_due {
            return Ok(());
        }
        let System { servers: addresses, hosts } = match (self.read_system)() {
            Ok(system) => system,
            // It is being written, or is gone for now.
            Err(_) if !state.servers.is_empty() => return Ok(()),
            Err(error) => return Err(error),
        };
        state.read_at = Some(now);
        state.hosts = hosts;
        let mut known: Vec<_> = state.servers.iter().map(|server| server.address).collect();
        let mut wanted = addresses.clone();
        known.sort_unstable();
        wanted.sort_unstable();
        if known != wanted {
            let servers = addresses.into_iter().map(|address| self.server(address, 0));
            state.servers = servers.collect::<Result<_>>()?;
        }
        Ok(())
    }

    fn server(&self, address: SocketAddr, generation: u64) -> Result<Server> {
        let mut options = ResolverOpts::default();
        options.timeout = self.config.timeout;
        // One that was given up may still be counted.
        options.max_active_requests = 2 * AT_ONCE;
        let tls = TlsConfig::new().map_err(cannot_be_made)?;
        let context = Arc::new(PoolContext::new(options, tls));
        let connections = match self.config.transport {
            Transport::UdpFirst => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
            Transport::TcpFirst => vec![ConnectionConfig::tcp()],
        };
        let connections = connections.into_iter().map(|mut connection| {
            connection.port = address.port();
            connection
        });
        let server = NameServerConfig::new(address.ip(), true, connections.collect());
        let pool = NameServerPool::from_config([server], context, TokioRuntimeProvider::default());
        let room = Arc::new(Semaphore::new(AT_ONCE));
        Ok(Server { address, pool, room, generation, failures: 0 })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn position(&self, server: &Server) -> Option<usize> {
        self.servers.iter().position(|known| {
            (known.address, known.generation) == (server.address, server.generation)
        })
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("config", &self.config).finish_non_exhaustive()
    }
}

fn read_system() -> Result<System> {
    let (config, _options) = read_system_conf().map_err(|cause| {
        Error::new(ErrorKind::Config, BACKEND, "follow")
            .with_message("the system's name servers cannot be read; name some")
            .with_source(cause)
            .transient()
    })?;
    let servers = config.name_servers().iter();
    let servers = servers.map(|server| SocketAddr::new(server.ip, DNS_PORT)).collect();
    // Not every system has one.
    Ok(System { servers, hosts: Hosts::from_system().unwrap_or_default() })
}

fn cannot_be_made(cause: NetError) -> Error {
    Error::new(ErrorKind::Config, BACKEND, "follow").with_source(cause)
}

/// Often enough that a laptop that changes its network is not noticed.
const SYSTEM_INTERVAL: Duration = Duration::from_secs(1);
/// One or two are lost packets.
const REBUILD_AFTER: u32 = 3;
/// Questions to one server at once: as many as hickory passes on to one connection before it turns the next away. Over UDP
/// each has a socket, of which a process often may have 1024 only.
const AT_ONCE: usize = 32;
const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use tokio::time::advance;

    use super::*;

    fn addresses(servers: &Servers) -> Vec<String> {
        let current = servers.current().expect("there are some");
        current.iter().map(|server| server.address.to_string()).collect()
    }

    fn named(n: u16) -> Servers {
        Servers::new(DnsConfig::new((1..=n).map(|port| SocketAddr::from(([127, 0, 0, 1], port)))))
    }

    #[test]
    fn server_that_knows_is_asked_first_from_then_on() {
        let servers = named(3);
        let third = servers.current().expect("three")[2].clone();
        servers.answered(&third, false);
        assert_eq!(addresses(&servers), ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
        servers.answered(&third, true);
        assert_eq!(addresses(&servers), ["127.0.0.1:3", "127.0.0.1:1", "127.0.0.1:2"]);
    }

    #[test]
    fn server_is_made_anew_after_three_failures_on_end() {
        let servers = named(1);
        let first = servers.current().expect("one")[0].clone();
        let generation = || servers.current().expect("one")[0].generation;
        servers.failed(&first);
        servers.failed(&first);
        servers.answered(&first, false);
        servers.failed(&first);
        servers.failed(&first);
        assert_eq!(generation(), 0, "an answer in between starts the count again");
        servers.failed(&first);
        assert_eq!(generation(), 1);
        servers.failed(&first);
        assert_eq!(generation(), 1, "what the old one did is not held against the new one");
    }

    #[tokio::test(start_paused = true)]
    async fn change_of_the_systems_servers_is_seen_within_a_second() {
        static LAST: AtomicU16 = AtomicU16::new(1);
        let servers =
            Servers::reading_from(DnsConfig::default(), || match LAST.load(Ordering::SeqCst) {
                0 => Err(super::super::error::no_servers()),
                last => Ok(System {
                    servers: vec![SocketAddr::from(([10, 0, 0, 1], last))],
                    hosts: Hosts::default(),
                }),
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

    /// Nor is its connection lost, or what is known of it.
    #[tokio::test(start_paused = true)]
    async fn system_that_has_not_changed_costs_nothing() {
        let servers = Servers::reading_from(DnsConfig::default(), || {
            let servers = [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 53)));
            Ok(System { servers: servers.to_vec(), hosts: Hosts::default() })
        });
        let second = servers.current().expect("two")[1].clone();
        servers.answered(&second, true);
        advance(SYSTEM_INTERVAL).await;
        assert_eq!(addresses(&servers), ["10.0.0.2:53", "10.0.0.1:53"]);
    }
}
