//! Follows a service by blocking queries.

mod keys;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use fastrand::Rng;
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};
use tower_sd_core::{
    Error, ErrorKind, Instance, ReadMode, ReadRequest, ReadResult, Result, Source, async_trait,
};

pub(crate) use self::keys::KeySource;

use crate::{
    BACKEND, Query,
    client::{
        ConsulClient, HealthAnswer, Ticket,
        reply::{DefaultPolicy, ServiceEntry},
    },
    error, mapping,
};

/// The wire of one followed service.
#[derive(Debug)]
pub(crate) struct ConsulSource {
    client: ConsulClient,
    query: Query,
    ticket: Ticket,
    /// The last answer's, while it can be waited for; `None` makes the next query a plain read.
    index: Option<u64>,
    waiting: Option<Waiting>,
    /// The agent answers blocking queries from a view of its own.
    streaming: bool,
    /// When the servers themselves answered last.
    probed_at: Option<Instant>,
    probe_every: Duration,
    /// A large service that changes all the time is not read all the time.
    not_before: Instant,
    /// The answer was empty, and why is known as far as it can be.
    doubted: bool,
    rng: Rng,
}

/// A blocking query under way.
struct Waiting {
    index: u64,
    query: BoxFuture<'static, Result<HealthAnswer>>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("index", &self.index).finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for ConsulSource {
    type Item = Instance;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        if request.mode == ReadMode::Full {
            (self.waiting, self.index) = (None, None);
        }
        let mut news = false;
        if request.waits() {
            sleep_until(self.not_before).await;
            if let Some((asked, answer)) = self.wait_alone().await? {
                return self.take(Some(asked), answer).await;
            }
            if self.ticket.is_shared() {
                self.ticket.change().await?;
                news = true;
            }
        }
        self.ticket.starts_to_read();
        let answer = match self.ask(request.mode, news).await {
            // There may be no leader; that is what a stale read is for.
            Err(error) if news && error.is_transient() => self.ask(request.mode, false).await?,
            answer => answer?,
        };
        self.take(None, answer).await
    }
}

impl ConsulSource {
    pub(crate) fn new(client: ConsulClient, query: Query, mut rng: Rng) -> Self {
        let probe_every = query.consistency_check_interval.mul_f64(0.9 + 0.2 * rng.f64());
        let ticket = client.follow(&query.service);
        Self {
            client,
            query,
            ticket,
            index: None,
            waiting: None,
            probe_every,
            streaming: false,
            probed_at: None,
            not_before: Instant::now(),
            doubted: false,
            rng,
        }
    }

    /// Waits by a query of its own; no answer when there is nothing to wait for, or when too many
    /// wait so. The query outlives this call: another read may come first.
    async fn wait_alone(&mut self) -> Result<Option<(u64, HealthAnswer)>> {
        if self.ticket.is_shared() || self.must_probe() {
            (self.waiting, self.index) = (None, None);
            return Ok(None);
        }
        let waiting = match (self.waiting.take(), self.index) {
            (Some(waiting), _) => waiting,
            (None, Some(index)) => {
                self.ticket.starts_to_read();
                self.query(index)
            }
            (None, None) => return Ok(None),
        };
        let index = waiting.index;
        let waiting = self.waiting.insert(waiting);
        let answer = self.ticket.alone(&mut waiting.query).await;
        // An answer that is an error leaves no index: one ahead of a server that was reset would
        // block for the whole wait.
        (self.waiting, self.index) = (None, None);
        let Some(answer) = answer.transpose()? else {
            return Ok(None);
        };
        self.heard(&answer, true);
        Ok(Some((index, answer)))
    }

    /// A query that is answered when the index has changed, or its wait is over.
    fn query(&mut self, index: u64) -> Waiting {
        let wait = self.wait();
        let mut parameters = self.query.parameters();
        parameters.extend(self.query.consistency());
        parameters.push(("index", index.to_string()));
        parameters.push(("wait", format!("{}ms", wait.as_millis().max(1))));
        let (client, service) = (self.client.clone(), self.query.service.clone());
        let query = async move { client.health(&service, parameters, Some(wait)).await };
        Waiting { index, query: query.boxed() }
    }

    /// Reads without waiting; from the leader for `news`, which a server behind it may not have
    /// yet.
    async fn ask(&mut self, mode: ReadMode, news: bool) -> Result<HealthAnswer> {
        let mut parameters = self.query.parameters();
        parameters.extend(match mode {
            ReadMode::Confirm => Some(("consistent", String::new())),
            _ => self.query.consistency().filter(|(name, _)| !(news && *name == "stale")),
        });
        let answer = self.client.health(&self.query.service, parameters, None).await?;
        self.heard(&answer, false);
        Ok(answer)
    }

    /// Notes the origin of an answer: a view proves nothing about the servers; any other answer is
    /// theirs.
    fn heard(&mut self, answer: &HealthAnswer, has_waited: bool) {
        self.probed_at = match (answer.meta.streaming, self.probed_at) {
            (true, Some(at)) => Some(at),
            (true, None) | (false, _) => Some(Instant::now()),
        };
        self.streaming = answer.meta.streaming || (self.streaming && !has_waited);
    }

    /// Makes a set of an answer to a query that waited for `asked`, or to a plain read.
    async fn take(&mut self, asked: Option<u64>, answer: HealthAnswer) -> Result<ReadResult> {
        let (mut asked, mut answer) = (asked, answer);
        if answer.meta.streaming && answer.meta.index < asked {
            // The view is behind what is known: it has just been made, or its servers are gone.
            answer = self.ask(ReadMode::Full, false).await?;
            asked = None;
        }
        self.index = None;
        if answer.meta.index.zip(asked).is_some_and(|(index, asked)| (2..asked).contains(&index)) {
            // A cluster was restored or wiped.
            return Ok(ReadResult::resync("index went back"));
        }
        let refresh_in = self.adopt(asked, &answer)?;
        // A query that waits for this very index goes on.
        if self.waiting.as_ref().is_some_and(|waiting| Some(waiting.index) != self.index) {
            self.waiting = None;
        }
        self.doubt(&answer).await?;
        self.not_before = Instant::now() + size_pause(answer.size);
        let set = ReadResult::set(self.instances(&answer.entries));
        Ok(match refresh_in {
            Some(after) => set.refresh_in(after),
            None => set,
        })
    }

    /// How long the next query waits: for less than requested where the agent's view has to be
    /// checked in between.
    fn wait(&mut self) -> Duration {
        // Servers with streaming add no jitter of their own, and clients that were started together
        // come back together.
        let wait = self.query.wait.mul_f64(1.0 - 0.1 * self.rng.f64());
        match self.probed_at {
            Some(at) if self.streaming => wait.min(self.probe_every.saturating_sub(at.elapsed())),
            _ => wait,
        }
    }

    /// Whether the last word of the servers themselves, not of the agent's view, is too long ago.
    fn must_probe(&self) -> bool {
        self.streaming
            && self.probed_at.is_none_or(|at| at.elapsed() + PROBE_SLACK >= self.probe_every)
    }

    /// Judges the answer's headers, and keeps its index if that can be waited for. Some: it cannot;
    /// query again after this.
    fn adopt(&mut self, asked: Option<u64>, answer: &HealthAnswer) -> Result<Option<Duration>> {
        let meta = &answer.meta;
        if meta.filtered_by_acls {
            let message = "the token does not see everything; it needs service:read and node:read";
            return Err(Error::new(ErrorKind::Denied, BACKEND, "follow").with_message(message));
        }
        if !meta.streaming && meta.last_contact.is_some_and(|age| age > MAX_LAST_CONTACT_MS) {
            return Err(unavailable("the server that answered has lost its leader"));
        }
        match (asked, meta.index) {
            // A proxy eats the header, or writes something else.
            (_, None) | (None, Some(0)) => Ok(Some(POLL)),
            (Some(_), Some(0 | 1)) => {
                Err(unavailable("index 1: the agent returns 200 while it cannot reach its servers"))
            }
            (None, Some(1)) if answer.entries.is_empty() => {
                Err(unavailable("index 1: the agent has not reached its servers yet"))
            }
            (_, Some(index)) => {
                self.index = Some(index);
                Ok(None)
            }
        }
    }

    /// With ACLs, an empty result may only mean that the token lacks access: another endpoint of
    /// the agent reports which, as far as `service:read` is concerned.
    async fn doubt(&mut self, answer: &HealthAnswer) -> Result<()> {
        let empty = answer.entries.is_empty();
        let policy = answer.meta.default_policy;
        if !empty || self.doubted || policy == DefaultPolicy::Allow {
            self.doubted = empty;
            return Ok(());
        }
        let service = &self.query.service;
        let has_token = self.client.has_token();
        let anonymous = policy == DefaultPolicy::Deny && !has_token;
        // Without an answer to this query the first answer stands.
        if let Ok(true) = self.client.is_hidden(service).await {
            let message = if has_token { HIDDEN } else { HIDDEN_FROM_ALL };
            return Err(Error::new(ErrorKind::Denied, BACKEND, "follow").with_message(message));
        }
        self.doubted = true;
        match anonymous {
            true => tracing::warn!(
                backend = BACKEND,
                service,
                "no instance is listed; {HIDDEN_FROM_ALL}"
            ),
            false => tracing::debug!(
                backend = BACKEND,
                service,
                "no instance is listed; with ACLs that is also the answer to a token without service:read and node:read"
            ),
        }
        Ok(())
    }

    fn instances(&self, entries: &[Box<RawValue>]) -> Vec<Result<Instance>> {
        let parse = |entry: &RawValue| {
            let entry: ServiceEntry = serde_json::from_str(entry.get()).map_err(|cause| {
                error::garbled("follow", "an entry is not as Consul writes it").with_source(cause)
            })?;
            mapping::instance(entry, self.query.tagged_address.as_deref())
        };
        entries.iter().map(|entry| parse(entry)).collect()
    }
}

fn size_pause(size: usize) -> Duration {
    PAUSE_PER_KB * u32::try_from(size / 1024).unwrap_or(u32::MAX)
}

fn unavailable(message: &str) -> Error {
    Error::new(ErrorKind::Unavailable, BACKEND, "follow").with_message(message)
}

const HIDDEN: &str = "the token may not read this service; it needs service:read and node:read";
const HIDDEN_FROM_ALL: &str = "the agent denies by default and no token was given: hidden services cannot be distinguished from \
    what is not there; give a token with service:read and node:read";
/// 300 ms after a megabyte, which is some 700 instances: about as much as the agent and we are busy
/// with it.
const PAUSE_PER_KB: Duration = Duration::from_micros(300);
/// A wait that ended this much too early is not worth another query.
const PROBE_SLACK: Duration = Duration::from_millis(50);
/// Above what an election takes; consul-template reads again after 2 s.
const MAX_LAST_CONTACT_MS: u64 = 10_000;
/// The interval of queries where waiting is not possible.
const POLL: Duration = Duration::from_secs(5);
