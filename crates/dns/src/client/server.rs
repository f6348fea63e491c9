//! One name server, and the ways of querying it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{ConnectionConfig, NameServerConfig, ResolverOpts},
    net::{
        DnsError, NetError,
        xfer::{DnsHandle, FirstAnswer},
    },
    proto::op::{DnsRequestOptions, DnsResponse, Query, ResponseCode},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};
use tower_sd_core::{Error, ErrorKind, Result};

use super::scope::ScopedRuntime;
use crate::{BACKEND, Transport};

/// One name server. Its sockets and connections are hickory's.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) timeout: Duration,
    /// A pool for each way: in one pool, hickory would merge queries with and without EDNS.
    pools: Vec<(Way, Pool)>,
    /// The way of the last response, when it was not the first.
    detour: Arc<Mutex<Option<(Way, Instant)>>>,
    /// One permit per query that is under way.
    room: Arc<Semaphore>,
}

type Pool = NameServerPool<ScopedRuntime>;
type Response = std::result::Result<DnsResponse, NetError>;

/// A transport, with or without EDNS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Edns,
    /// Without EDNS, for servers and firewalls that reject or drop it (RFC 6891 §7).
    Plain,
    /// Without EDNS too: it matters to the size of packets only.
    Tcp,
}

impl Server {
    pub(super) fn new(
        address: SocketAddr,
        transport: Transport,
        timeout: Duration,
    ) -> Result<Self> {
        let ways: &[Way] = match transport {
            Transport::UdpFirst => &[Way::Edns, Way::Plain, Way::Tcp],
            Transport::TcpFirst => &[Way::Tcp],
        };
        let pools = ways.iter().map(|way| Ok((*way, pool(address, *way, timeout)?)));
        Ok(Self {
            address,
            timeout,
            pools: pools.collect::<Result<_>>()?,
            detour: Arc::default(),
            room: Arc::new(Semaphore::new(MAX_QUERIES)),
        })
    }

    /// The server's response to `query`, within its time.
    pub(super) async fn query(&self, query: Query) -> Response {
        // A silent server's turns are taken for that long; the next server is not kept waiting
        // longer.
        let turn = timeout(self.timeout, self.room.acquire()).await;
        let _turn = turn.map_err(|_elapsed| NetError::Timeout)?;
        let started = Instant::now();
        let (half, end) = (started + self.timeout / 2, started + self.timeout);
        let first = self.first_way();
        let (mut queries, mut failed) = (FuturesUnordered::new(), None);
        queries.push(self.query_by(first, &query));
        let mut is_first = true;
        loop {
            let until = if is_first { half } else { end };
            let others = match timeout_at(until, queries.next()).await {
                Ok(Some((way, response))) if is_final(way, &response) => {
                    self.remember(way);
                    return response;
                }
                Ok(Some((way, response))) => {
                    if way == first {
                        failed = response.err();
                    }
                    others(failed.as_ref())
                }
                Err(_elapsed) if is_first => others(None),
                Ok(None) | Err(_) => return Err(failed.unwrap_or(NetError::Timeout)),
            };
            if is_first {
                is_first = false;
                let others = others.iter().filter(|way| **way != first && self.has(**way));
                queries.extend(others.map(|way| self.query_by(*way, &query)));
            }
        }
    }

    fn query_by(&self, way: Way, query: &Query) -> BoxFuture<'static, (Way, Response)> {
        let pool = self.pools.iter().find(|(of, _)| *of == way).map(|(_, pool)| pool.clone());
        let mut options = DnsRequestOptions::default();
        options.use_edns = way == Way::Edns;
        let query = query.clone();
        async move {
            match pool {
                Some(pool) => (way, pool.lookup(query, options).first_answer().await),
                None => (way, Err(NetError::NoConnections)),
            }
        }
        .boxed()
    }

    fn has(&self, way: Way) -> bool {
        self.pools.iter().any(|(of, _)| *of == way)
    }

    fn first_way(&self) -> Way {
        let detour = self.detour.lock().unwrap_or_else(PoisonError::into_inner);
        let detour = detour.filter(|(_, since)| since.elapsed() < DETOUR).map(|(way, _)| way);
        detour.unwrap_or(self.pools[0].0)
    }

    /// Makes `way` the first one for a while.
    fn remember(&self, way: Way) {
        let mut detour = self.detour.lock().unwrap_or_else(PoisonError::into_inner);
        match *detour {
            _ if way == self.pools[0].0 => *detour = None,
            Some((known, _)) if known == way => {}
            _ => {
                tracing::debug!(server = %self.address, ?way, "name server responds this way only");
                *detour = Some((way, Instant::now()));
            }
        }
    }
}

/// The ways after the first one failed, or did not respond yet.
fn others(failed: Option<&NetError>) -> &'static [Way] {
    match failed {
        Some(NetError::Dns(_)) => &[Way::Plain],
        _ => &[Way::Edns, Way::Plain, Way::Tcp],
    }
}

/// Whether the server has responded, and would not respond otherwise without EDNS.
fn is_final(way: Way, response: &Response) -> bool {
    match response {
        Ok(_) | Err(NetError::Truncated) => true,
        Err(NetError::Dns(DnsError::ResponseCode(
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS,
        ))) => way != Way::Edns,
        Err(NetError::Dns(_)) => true,
        Err(_) => false,
    }
}

fn pool(address: SocketAddr, way: Way, timeout: Duration) -> Result<Pool> {
    let mut options = ResolverOpts::default();
    options.timeout = timeout;
    // A query that was given up may still be counted.
    options.max_active_requests = 2 * MAX_QUERIES;
    let tls = TlsConfig::new()
        .map_err(|cause| Error::new(ErrorKind::Config, BACKEND, "follow").with_source(cause))?;
    let context = Arc::new(PoolContext::new(options, tls));
    let connections = match way {
        Way::Edns | Way::Plain => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
        Way::Tcp => vec![ConnectionConfig::tcp()],
    };
    let connections = connections.into_iter().map(|mut connection| {
        connection.port = address.port();
        connection
    });
    let server = NameServerConfig::new(address.ip(), true, connections.collect());
    Ok(NameServerPool::from_config([server], context, ScopedRuntime::to(address)))
}

/// Queries to one server at a time: the number that hickory passes on to one connection.
///
/// Over UDP each has a socket, of which a process often may have 1024 only.
const MAX_QUERIES: usize = 32;
/// After this time the first way is tried again: a server is replaced, a firewall mended.
const DETOUR: Duration = Duration::from_secs(600);
