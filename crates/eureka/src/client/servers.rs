//! Several servers of one registry: which one is used, and which one next.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tower_sd_core::{Error, Result};

use super::{
    credentials::{Credentials, credentials},
    http::{Answer, Call, Server},
};
use crate::{
    EurekaConfig,
    error::{self, FOLLOW},
};

/// The servers, in the order in which they are tried.
///
/// The first one is used until it fails: servers replicate with a delay, so that two of them may
/// differ. Those of the own zone are first, and within a zone the order is random. It is drawn anew
/// every 20 min, so that clients spread over servers that were added or restarted.
#[derive(Debug)]
pub(super) struct Servers {
    all: Vec<Server>,
    zone: Option<String>,
    credentials: Credentials,
    order: Mutex<Order>,
}

#[derive(Debug)]
struct Order {
    indices: Vec<usize>,
    until: Instant,
}

/// A request to one server. Dropped without success, the server is tried last from then on: a call
/// that is given up while a server hangs must not hang at it again. Given up soon, it proves
/// nothing.
struct Attempt<'a> {
    servers: &'a Servers,
    index: usize,
    began: Instant,
    end: End,
}

#[derive(Eq, PartialEq)]
enum End {
    GivenUp,
    Failed,
    Succeeded,
}

impl Servers {
    pub(super) fn new(config: &EurekaConfig) -> Result<Self> {
        let servers = config.servers.iter().map(|server| Server::new(server, config));
        let servers = Self {
            all: servers.collect::<Result<_>>()?,
            zone: config.zone.clone(),
            credentials: credentials(config)?,
            order: Mutex::new(Order { indices: Vec::new(), until: Instant::now() }),
        };
        servers.reshuffle(&mut servers.lock());
        Ok(servers)
    }

    /// Sends to the first server that answers; returns its index too.
    ///
    /// # Cancel safety
    ///
    /// The request may have been read.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<(usize, Answer)> {
        let mut failure = None;
        for index in self.order() {
            match self.send_to(index, call).await {
                Ok(answer) => return Ok((index, answer)),
                Err(error) if error.is_transient() => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| error::config("configure", "servers: there are none")))
    }

    /// Sends to one server.
    ///
    /// A server that cannot serve now, or not yet, is an error, and so is an answer that is not
    /// Eureka's. One that it refuses to give stands, and the next request goes to another server.
    pub(super) async fn send_to(&self, index: usize, call: &Call<'_>) -> Result<Answer> {
        let mut attempt = self.attempt(index);
        let answer = self.all[index].send(call, &self.credentials).await;
        let foreign = match &answer {
            Ok(answer) => self.foreign(index, answer).await,
            Err(_) => None,
        };
        attempt.end = End::Failed;
        let answer = answer?;
        let refusal = foreign.or_else(|| match answer.status {
            200..=299 | 404 => None,
            _ => Some(answer.refused()),
        });
        if let Some(error) = refusal.as_ref().filter(|error| error.is_transient()) {
            tracing::debug!(backend = crate::BACKEND, error = %error.chain(), "server left");
            return Err(error.clone());
        }
        if refusal.is_none() {
            attempt.end = End::Succeeded;
        }
        Ok(answer)
    }

    /// The error of an answer that is not Eureka's.
    ///
    /// Tomcat writes a page of its own for an unknown entry, as a proxy does without its server.
    /// Only a server has recent changes, or refuses them as not ready.
    async fn foreign(&self, index: usize, answer: &Answer) -> Option<Error> {
        let error = answer.not_eurekas()?;
        if answer.status == 404 {
            let changes = Call::get(FOLLOW, &["apps", "delta"]);
            let changes = self.all[index].send(&changes, &self.credentials).await;
            let is_eurekas =
                |it: Answer| it.status == 403 || it.is_success() && it.not_eurekas().is_none();
            if changes.is_ok_and(is_eurekas) {
                return None;
            }
        }
        Some(error)
    }

    /// Sends to one server what it need not offer: any answer leaves it in use.
    pub(super) async fn probe(&self, index: usize, call: &Call<'_>) -> Result<Answer> {
        let mut attempt = self.attempt(index);
        let answer = self.all[index].send(call, &self.credentials).await;
        attempt.end = if answer.is_ok() { End::Succeeded } else { End::Failed };
        answer
    }

    fn attempt(&self, index: usize) -> Attempt<'_> {
        Attempt { servers: self, index, began: Instant::now(), end: End::GivenUp }
    }

    /// The indices of all servers, the one in use first.
    pub(super) fn order(&self) -> Vec<usize> {
        let mut order = self.lock();
        if order.until <= Instant::now() {
            self.reshuffle(&mut order);
        }
        order.indices.clone()
    }

    /// Uses this server from now on.
    pub(super) fn prefer(&self, index: usize) {
        let mut order = self.lock();
        order.indices.retain(|it| *it != index);
        order.indices.insert(0, index);
    }

    fn reshuffle(&self, order: &mut Order) {
        order.indices = (0..self.all.len()).collect();
        fastrand::shuffle(&mut order.indices);
        let is_elsewhere = |index: &usize| self.all[*index].zone != self.zone;
        order.indices.sort_by_key(is_elsewhere);
        order.until = Instant::now() + RESHUFFLE.mul_f64(0.75 + 0.5 * fastrand::f64());
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let is_soon = self.end == End::GivenUp && self.began.elapsed() < HANGING;
        if self.end != End::Succeeded && !is_soon {
            let mut order = self.servers.lock();
            order.indices.retain(|it| *it != self.index);
            order.indices.push(self.index);
        }
    }
}

/// The default of Netflix's client (`sessionedClientReconnectIntervalSeconds`), within a quarter.
const RESHUFFLE: Duration = Duration::from_secs(20 * 60);

/// A call that is given up after this time was one to a server that hangs.
const HANGING: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EurekaServer;

    fn servers(zone: &str) -> Servers {
        let mut config = EurekaConfig::new("http://127.0.0.1:1/eureka").zone(zone);
        config.servers.clear();
        for (port, zone) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
            let url = format!("http://127.0.0.1:{port}/eureka");
            config.servers.push(EurekaServer::new(url).zone(zone));
        }
        Servers::new(&config).expect("it can work")
    }

    #[tokio::test(start_paused = true)]
    async fn servers_of_the_own_zone_are_first_in_random_order() {
        let mut firsts = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let order = servers("a").order();
            let mut own = order[..2].to_vec();
            own.sort_unstable();
            assert_eq!(own, [0, 2], "{order:?}");
            firsts.insert(order[0]);
        }
        assert_eq!(firsts.len(), 2, "random within the zone");
    }

    #[tokio::test(start_paused = true)]
    async fn failed_server_is_last_until_the_order_is_drawn_anew() {
        let servers = servers("b");
        assert_eq!(servers.order()[0], 1);
        drop(servers.attempt(1));
        assert_eq!(servers.order()[0], 1, "given up soon");
        let hanging = servers.attempt(1);
        tokio::time::advance(HANGING).await;
        drop(hanging);
        assert_eq!(servers.order()[3], 1);
        let sticky = servers.order();
        assert_eq!(servers.order(), sticky);
        tokio::time::advance(RESHUFFLE * 2).await;
        assert_eq!(servers.order()[0], 1);
    }
}
