//! Follows a service by blocking queries.

#[cfg(test)]
mod tests;

use std::time::Duration;

use fastrand::Rng;
use serde_json::value::RawValue;
use tower_sd_core::{
    Error, ErrorKind, FollowConfig, Follower, Instance, Instancer, PublisherConfig, Read, Reading,
    Result, Source, Subscription, async_trait,
};

use crate::{
    BACKEND, ConsulClient, Query,
    client::{HealthAnswer, error, reply::ServiceEntry},
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
    /// What the last answer said, while it can be trusted; `None` makes the next query answer at once.
    index: Option<u64>,
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
        let source = ConsulSource {
            client: client.clone(),
            query,
            index: None,
            rng: follow.seed.map_or_else(Rng::new, Rng::with_seed),
        };
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

    async fn read(&mut self, want: Read) -> Result<Reading> {
        // Taken out: an answer that is an error, or dropped, leaves none (an index ahead of a server that was reset
        // would block for the whole wait).
        let index = self.index.take().filter(|_| want == Read::Changed);
        let answer = self.ask(want, index).await?;
        let refresh_in = self.adopt(index, &answer)?;
        Ok(Reading::Set {
            entries: self.instances(&answer.entries),
            refresh_in,
        })
    }
}

impl ConsulSource {
    async fn ask(&mut self, want: Read, index: Option<u64>) -> Result<HealthAnswer> {
        let mut parameters = self.query.parameters();
        if want == Read::Confirm {
            parameters.push(("consistent", String::new()));
        }
        let wait = index.map(|index| {
            // Servers with streaming add no jitter of their own, and clients that were started together come back together.
            let wait = self.query.wait.mul_f64(1.0 - 0.1 * self.rng.f64());
            parameters.push(("index", index.to_string()));
            parameters.push(("wait", format!("{}ms", wait.as_millis().max(1))));
            wait
        });
        let service = &self.query.service;
        self.client.health(service, parameters, wait).await
    }

    /// Judges the answer's headers, and keeps its index if that can be waited for. Some: it cannot; ask again after this.
    fn adopt(&mut self, asked: Option<u64>, answer: &HealthAnswer) -> Result<Option<Duration>> {
        let meta = &answer.meta;
        if meta.filtered_by_acls {
            return Err(
                Error::new(ErrorKind::Denied, BACKEND, "follow").with_message(
                    "the token does not see everything; it needs service:read and node:read",
                ),
            );
        }
        match (asked, meta.index) {
            // A proxy eats the header, or writes something else.
            (_, None) | (None, Some(0)) => Ok(Some(POLL)),
            (Some(_), Some(0 | 1)) => Err(Error::new(ErrorKind::Unavailable, BACKEND, "follow")
                .with_message("index 1: the agent says 200 while it cannot reach its servers")),
            (None, Some(1)) if answer.entries.is_empty() => {
                Err(Error::new(ErrorKind::Unavailable, BACKEND, "follow")
                    .with_message("index 1: the agent has not heard of its servers yet"))
            }
            // It went back: a cluster was restored or wiped. The data is what there is; the index is not waited for.
            (Some(asked), Some(index)) if index < asked => Ok(None),
            (_, Some(index)) => {
                self.index = Some(index);
                Ok(None)
            }
        }
    }

    fn instances(&self, entries: &[Box<RawValue>]) -> Vec<Result<Instance>> {
        let parsed = entries.iter().map(|entry| {
            let entry: ServiceEntry = serde_json::from_str(entry.get()).map_err(|cause| {
                error::garbled("follow", "an entry is not as Consul writes it").with_source(cause)
            })?;
            mapping::instance(entry)
        });
        parsed
            .filter(|parsed| match parsed {
                Ok(instance) => self.query.wants(instance.status()),
                Err(_) => true,
            })
            .collect()
    }
}

/// How often to ask when waiting is not possible.
const POLL: Duration = Duration::from_secs(5);
