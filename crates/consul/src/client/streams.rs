//! The HTTP clients over which services are followed.
//!
//! Over TLS an agent uses HTTP/2: then a query that waits costs a stream, and no connection. Every
//! client has one connection of its own, for a connection has a limit of streams, beyond which
//! requests wait silently. Registrations and heartbeats take other connections: one call that gets
//! no answer is no reason to close that of a hundred queries, and a heartbeat has no time to find
//! out whether it would be.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use http::Version;
use tokio::sync::watch;
use tower_sd_core::Result;
use tower_sd_net::HttpClient;

/// Where blocking queries wait.
#[derive(Debug)]
pub(super) struct Streams {
    lanes: Vec<Lane>,
    multiplexed: watch::Sender<bool>,
}

#[derive(Debug)]
struct Lane {
    http: HttpClient,
    n_queries: Arc<AtomicUsize>,
}

/// A query's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) http: HttpClient,
    n_queries: Arc<AtomicUsize>,
}

impl Streams {
    /// Several clients where the agent may use HTTP/2, which it does over TLS only.
    pub(super) fn new(tls: bool, client: impl Fn() -> Result<HttpClient>) -> Result<Self> {
        let n_lanes = if tls { MAX_STREAMS / STREAMS_OF_A_CONNECTION } else { 1 };
        let lane = |_| Ok(Lane { http: client()?, n_queries: Arc::default() });
        let lanes = (0..n_lanes).map(lane).collect::<Result<_>>()?;
        Ok(Self { lanes, multiplexed: watch::Sender::new(false) })
    }

    /// Fills one connection after the other.
    pub(super) fn place(&self) -> Place {
        let n = |lane: &&Lane| lane.n_queries.load(Relaxed);
        let free = self.lanes.iter().find(|lane| n(lane) < STREAMS_OF_A_CONNECTION);
        let lane = free.or_else(|| self.lanes.iter().min_by_key(n)).expect("there is one");
        lane.n_queries.fetch_add(1, Relaxed);
        Place { http: lane.http.clone(), n_queries: Arc::clone(&lane.n_queries) }
    }

    /// Learns from an answer which protocol the agent uses.
    pub(super) fn heard(&self, version: Version) {
        let multiplexed = version == Version::HTTP_2;
        self.multiplexed
            .send_if_modified(|known| std::mem::replace(known, multiplexed) != multiplexed);
    }

    /// How many queries may wait concurrently, if `connections` may be occupied.
    pub(super) fn max_queries(&self, connections: usize) -> usize {
        match *self.multiplexed.borrow() {
            true => connections.max(MAX_STREAMS),
            false => connections,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.n_queries.fetch_sub(1, Relaxed);
    }
}

/// What HTTP/2 recommends to every server (RFC 9113, section 6.5.2); Consul allows 250, proxies 100
/// or 128.
const STREAMS_OF_A_CONNECTION: usize = 100;
/// Twice the thousand services for which this is made; an agent needs 80 KB for each.
const MAX_STREAMS: usize = 2_000;

#[cfg(test)]
mod tests {
    use tower_sd_net::Target;

    use super::*;

    #[test]
    fn places_fill_one_connection_after_the_other() {
        let client = || HttpClient::builder(Target::host("127.0.0.1", 8501)).build();
        let streams = Streams::new(true, client).expect("an address");
        let mut places: Vec<Place> = (0..150).map(|_| streams.place()).collect();
        let taken = || -> Vec<usize> {
            let taken = streams.lanes.iter().map(|lane| lane.n_queries.load(Relaxed));
            taken.filter(|n| *n > 0).collect()
        };
        assert_eq!(taken(), [100, 50]);
        places.drain(..30);
        assert_eq!(taken(), [70, 50]);
        places.extend((0..31).map(|_| streams.place()));
        assert_eq!(taken(), [100, 51]);
        places.extend((0..2_000).map(|_| streams.place()));
        assert!(taken().iter().all(|n| *n > 100), "beyond the bound they are shared out");
        drop(places);
        assert!(taken().is_empty());
    }
}
