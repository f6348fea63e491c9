//! Follows an application by polling.

use std::sync::Arc;

use tower_sd_core::{Instance, ReadMode, ReadRequest, ReadResult, Result, Source, async_trait};

use crate::{
    Lookup, Query,
    client::{Entries, EurekaClient, Ticket, reply::InstanceInfo},
    config::MAX_POLL,
    error, mapping,
};

/// The wire of one followed service.
#[derive(Debug)]
pub(crate) struct EurekaSource {
    client: EurekaClient,
    query: Query,
    /// As servers have it.
    name: String,
    /// `None` for a virtual address, which is always read by itself.
    ticket: Option<Ticket>,
    /// The last set that was read with others.
    known: Option<Entries>,
    /// Confirmations that failed because a server was away and the others had nothing.
    n_unconfirmed: u32,
}

impl EurekaSource {
    pub(crate) fn new(client: EurekaClient, query: Query) -> Self {
        let (name, ticket) = match query.lookup {
            Lookup::App => (mapping::app_name(&query.name), Some(client.follow())),
            Lookup::Vip | Lookup::SecureVip => (mapping::vip_address(&query.name), None),
        };
        Self { client, query, name, ticket, known: None, n_unconfirmed: 0 }
    }

    async fn read_alone(&mut self, mode: ReadMode) -> Result<ReadResult> {
        if let Some(ticket) = &mut self.ticket {
            ticket.leave();
        }
        let read = match mode {
            ReadMode::Confirm => self.confirmed().await?,
            _ => {
                self.known = None;
                set(&self.client.instances(self.query.lookup, &self.name).await?, &self.query)
            }
        };
        Ok(read.refresh_in(self.query.poll_interval.min(MAX_POLL)))
    }

    async fn confirmed(&mut self) -> Result<ReadResult> {
        self.known = None;
        let Self { client, query, name, .. } = self;
        // A server that is away for good must not hold the last instance for good.
        let accepts_absence = self.n_unconfirmed >= MAX_UNCONFIRMED;
        self.n_unconfirmed = self.n_unconfirmed.saturating_add(1);
        let all = client.instances_of_all(query.lookup, name, accepts_absence).await?;
        self.n_unconfirmed = 0;
        Ok(set(&all, query))
    }
}

#[async_trait]
impl Source for EurekaSource {
    type Item = Instance;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        let Self { query, name, known, .. } = self;
        if name.is_empty() {
            // `apps/` is all of the registry.
            return Err(error::config("follow", "an application needs a name that is not empty"));
        }
        let shared = self.ticket.as_mut().filter(|ticket| ticket.is_shared());
        let ticket = match (shared, request.mode) {
            (Some(_), ReadMode::Confirm) => return self.confirmed().await,
            (Some(ticket), _) => ticket,
            (None, _) => return self.read_alone(request.mode).await,
        };
        let entries = match request.mode {
            ReadMode::Changed => ticket.next(name).await,
            ReadMode::Verify => ticket.soon(name).await,
            _ => ticket.latest(name).await,
        };
        let entries = match entries {
            Ok(entries) => entries,
            // The task goes on, and its next success is waited for.
            Err(error) => return Ok(ReadResult::trouble(error)),
        };
        if request.mode != ReadMode::Full && known.as_ref() == Some(&entries) {
            return Ok(ReadResult::unchanged());
        }
        *known = Some(Arc::clone(&entries));
        Ok(set(entries.values(), query))
    }
}

fn set<'a>(entries: impl IntoIterator<Item = &'a Arc<InstanceInfo>>, query: &Query) -> ReadResult {
    let instances = entries.into_iter().map(|entry| mapping::instance(entry, query));
    ReadResult::set(instances.collect())
}

/// Beyond it the servers that answer are enough. A living instance registers again within 30 s, and
/// with the backoff of failed reads this takes longer.
const MAX_UNCONFIRMED: u32 = 8;

#[cfg(test)]
mod tests {
    use tower_sd_core::ErrorKind;
    use tower_sd_testkit::script::{Reply, Script};

    use super::*;
    use crate::EurekaConfig;

    #[tokio::test]
    async fn name_that_is_empty_is_not_followed() {
        let script = Script::answering(|_| Reply::new(200).body("{}")).await.expect("loopback");
        let config = EurekaConfig::new(format!("{}/eureka", script.url()));
        let client = EurekaClient::new(config).expect("it can work");
        for query in [Query::new(""), Query::vip("")] {
            let mut source = EurekaSource::new(client.clone(), query);
            let read = source.read(ReadRequest::new(ReadMode::Full)).await;
            assert_eq!(read.expect_err("no name").kind(), ErrorKind::Config);
        }
        assert!(script.received().is_empty());
    }
}
