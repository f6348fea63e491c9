//! Follows a service by blocking queries.

#[cfg(test)]
mod tests;

use std::time::Duration;

use fastrand::Rng;
use serde_json::value::RawValue;
use tokio::{
    select,
    time::{Instant, sleep_until},
};
use tower_sd_core::{
    Error, ErrorKind, FollowConfig, Follower, Instance, Instancer, PublisherConfig, ReadMode,
    ReadRequest, ReadResult, Result, Source, Subscription, async_trait,
};

use crate::{
    BACKEND, ConsulClient, Query,
    client::{
        HealthAnswer, Ticket, error,
        reply::{DefaultPolicy, ServiceEntry},
    },
    mapping,
};

/// Follows the instances of a service.
///
/// One blocking query is open at any time: a change is known a few milliseconds after the servers agreed on it.
#[derive(Clone, Debug)]
pub struct ConsulInstancer(Follower);

/// The wire of one followed service.
#[derive(Debug)]
struct ConsulSource {
    client: ConsulClient,
    query: Query,
    ticket: Ticket,
    /// What the last answer said, while it can be trusted; `None` makes the next query answer at once.
    index: Option<u64>,
    /// The agent answers blocking queries from a view of its own.
    streaming: bool,
    /// When the servers themselves were heard of last.
    probed_at: Option<Instant>,
    probe_every: Duration,
    /// A large service that changes all the time is not read all the time.
    not_before: Instant,
    /// The answer was empty, and why is known as far as it can be.
    doubted: bool,
    rng: Rng,
}

impl ConsulInstancer {
    /// Starts to follow what `query` names, with the default settings.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(client: &ConsulClient, query: Query) -> Self {
        let publisher = PublisherConfig::new(BACKEND, query.service.clone());
        Self::with_config(client, query, publisher, FollowConfig::new(BACKEND))
    }

    /// Starts to follow what `query` names, with these settings.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn with_config(
        client: &ConsulClient,
        query: Query,
        publisher: PublisherConfig,
        follow: FollowConfig,
    ) -> Self {
        let rng = follow.seed.map_or_else(Rng::new, Rng::with_seed);
        let wanted = query.clone();
        let publisher = publisher.wants(move |instance| wanted.wants(instance.status()));
        let source = ConsulSource::new(client.clone(), query, rng);
        Self(Follower::new(source, publisher, follow))
    }

    /// Ends the loop and its query, and waits for that.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the loop still ends; only the waiting is lost.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

impl Instancer for ConsulInstancer {
    fn subscribe(&self) -> Subscription {
        self.0.subscribe()
    }
}

#[async_trait]
impl Source for ConsulSource {
    type Item = Instance;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        // Taken out: an answer that is an error, or dropped, leaves none (an index ahead of a server that was reset
        // would block for the whole wait).
        let mut index = self.index.take().filter(|_| request.waits() && !self.must_probe());
        let mut answer = None;
        if request.waits() {
            sleep_until(self.not_before).await;
            answer = self.wait_alone(index).await?;
        }
        let mut answer = match answer {
            Some(answer) => answer,
            None => {
                index = None;
                if request.waits() && self.ticket.is_shared() {
                    self.ticket.change().await?;
                }
                self.ticket.starts_to_read();
                self.ask(request.mode, None).await?
            }
        };
        let mut asked = index;
        if answer.meta.streaming && answer.meta.index < index {
            // The view is behind what we know already: it has just been made, or its servers are gone.
            answer = self.ask(ReadMode::Full, None).await?;
            asked = None;
        }
        let refresh_in = self.adopt(asked, &answer)?;
        self.doubt(&answer).await?;
        self.not_before = Instant::now() + size_pause(answer.size);
        let set = ReadResult::set(self.instances(&answer.entries));
        Ok(match refresh_in {
            Some(after) => set.refresh_in(after),
            None => set,
        })
    }
}

impl ConsulSource {
    fn new(client: ConsulClient, query: Query, mut rng: Rng) -> Self {
        let probe_every = query.probe_every.mul_f64(0.9 + 0.2 * rng.f64());
        let ticket = client.follow(&query.service);
        Self {
            client,
            query,
            ticket,
            index: None,
            probe_every,
            streaming: false,
            probed_at: None,
            not_before: Instant::now(),
            doubted: false,
            rng,
        }
    }

    /// Waits by a query of its own; there is no answer when there is nothing to wait for, or when too many wait so.
    async fn wait_alone(&mut self, index: Option<u64>) -> Result<Option<HealthAnswer>> {
        if index.is_none() || self.ticket.is_shared() {
            return Ok(None);
        }
        self.ticket.starts_to_read();
        let mut shared = self.ticket.shared();
        select! {
            biased;
            _ = shared.wait_for(|shared| *shared) => Ok(None),
            answer = self.ask(ReadMode::Changed, index) => answer.map(Some),
        }
    }

    async fn ask(&mut self, mode: ReadMode, index: Option<u64>) -> Result<HealthAnswer> {
        let mut parameters = self.query.parameters();
        parameters.extend(match mode {
            ReadMode::Confirm => Some(("consistent", String::new())),
            _ => self.query.consistency(),
        });
        let wait = index.map(|index| {
            let wait = self.wait();
            parameters.push(("index", index.to_string()));
            parameters.push(("wait", format!("{}ms", wait.as_millis().max(1))));
            wait
        });
        let service = &self.query.service;
        let answer = self.client.health(service, parameters, wait).await?;
        // A view says nothing about the servers; any other answer is theirs.
        self.probed_at = match (answer.meta.streaming, self.probed_at) {
            (true, Some(at)) => Some(at),
            (true, None) | (false, _) => Some(Instant::now()),
        };
        self.streaming = answer.meta.streaming || (self.streaming && index.is_none());
        Ok(answer)
    }

    /// How long the next query waits: for less than was asked where the agent's word has to be checked in between.
    fn wait(&mut self) -> Duration {
        // Servers with streaming add no jitter of their own, and clients that were started together come back together.
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

    /// Judges the answer's headers, and keeps its index if that can be waited for. Some: it cannot; ask again after this.
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
                Err(unavailable("index 1: the agent says 200 while it cannot reach its servers"))
            }
            (None, Some(1)) if answer.entries.is_empty() => {
                Err(unavailable("index 1: the agent has not heard of its servers yet"))
            }
            // It went back: a cluster was restored or wiped. The data is what there is; the index is not waited for.
            (Some(asked), Some(index)) if index < asked => Ok(None),
            (_, Some(index)) => {
                self.index = Some(index);
                Ok(None)
            }
        }
    }

    /// With ACLs, that nobody is there cannot be told from that nobody may be seen: another endpoint of the agent says
    /// which, as far as `service:read` is concerned.
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
        // An agent that cannot be asked has been asked, and the answer stands.
        if let Ok(true) = self.client.is_hidden(service).await {
            let message = if has_token { HIDDEN } else { HIDDEN_FROM_ANYBODY };
            return Err(Error::new(ErrorKind::Denied, BACKEND, "follow").with_message(message));
        }
        self.doubted = true;
        match anonymous {
            true => tracing::warn!(
                backend = BACKEND,
                service,
                "nobody is listed; {HIDDEN_FROM_ANYBODY}"
            ),
            false => tracing::debug!(
                backend = BACKEND,
                service,
                "nobody is listed; with ACLs that is also what a token without service:read and node:read sees"
            ),
        }
        Ok(())
    }

    fn instances(&self, entries: &[Box<RawValue>]) -> Vec<Result<Instance>> {
        let parse = |entry: &Box<RawValue>| {
            let entry: ServiceEntry = serde_json::from_str(entry.get()).map_err(|cause| {
                error::garbled("follow", "an entry is not as Consul writes it").with_source(cause)
            })?;
            mapping::instance(entry, self.query.tagged_address.as_deref())
        };
        entries.iter().map(parse).collect()
    }
}

fn size_pause(size: usize) -> Duration {
    PAUSE_PER_KB * u32::try_from(size / 1024).unwrap_or(u32::MAX)
}

fn unavailable(message: &str) -> Error {
    Error::new(ErrorKind::Unavailable, BACKEND, "follow").with_message(message)
}

const HIDDEN: &str = "the token may not read this service; it needs service:read and node:read";
const HIDDEN_FROM_ANYBODY: &str = "the agent denies by default and no token was given: what is hidden cannot be told from \
    what is not there; give a token with service:read and node:read";
/// 300 ms after a megabyte, which is some 700 instances: about as much as the agent and we are busy with it.
const PAUSE_PER_KB: Duration = Duration::from_micros(300);
/// A wait that ended this much too early is not worth another query.
const PROBE_SLACK: Duration = Duration::from_millis(50);
/// Above what an election takes; consul-template reads again after 2 s.
const MAX_LAST_CONTACT_MS: u64 = 10_000;
/// How often to ask when waiting is not possible.
const POLL: Duration = Duration::from_secs(5);
