//! Follows keys by blocking queries.

use std::time::Duration;

use tower_sd_core::{
    Error, ErrorKind, KeyValue, ReadMode, ReadRequest, ReadResult, Result, Source, async_trait,
};

use crate::{
    BACKEND, ConsulClient,
    client::{
        Ticket,
        kv::{Key, KeysAnswer},
    },
};

/// Watches a key, or all keys below a prefix: what `tower_sd_config::Config` follows in Consul.
///
/// One blocking query is open at any time, which occupies one of the 200 connections that an agent
/// grants an address. Beyond [`max_blocking_queries`](crate::ConsulConfig::max_blocking_queries) followers of one
/// client, those of services included, keys are read every 5 s instead. A prefix is read whole with every change: it has to fit into the client's
/// [`max_body`](crate::ConsulConfig::max_body), in base 64.
#[derive(Debug)]
pub struct ConsulKvSource {
    client: ConsulClient,
    ticket: Ticket,
    what: What,
    /// What the last answer said, while it can be trusted; `None` makes the next query answer at once.
    index: Option<u64>,
}

#[derive(Debug)]
enum What {
    Key(String),
    Prefix(String),
}

impl ConsulKvSource {
    /// Watches one key. The token needs `key:read` of it.
    #[must_use]
    pub fn key(client: &ConsulClient, key: impl Into<String>) -> Self {
        Self::new(client, What::Key(key.into()))
    }

    /// Watches all keys below `prefix`, a folder: `app` has `app/port`, and not `apple`. The token needs `key:read` of all of
    /// them: Consul leaves out what it may not see, without a word.
    #[must_use]
    pub fn prefix(client: &ConsulClient, prefix: impl Into<String>) -> Self {
        let mut prefix = prefix.into();
        if !prefix.ends_with('/') && !prefix.is_empty() {
            prefix.push('/');
        }
        Self::new(client, What::Prefix(prefix))
    }

    fn new(client: &ConsulClient, what: What) -> Self {
        Self { client: client.clone(), ticket: client.follow_keys(), what, index: None }
    }

    async fn ask(&self, mode: ReadMode, index: Option<u64>) -> Result<KeysAnswer> {
        let (key, mut query) = match &self.what {
            What::Key(key) if key.is_empty() => {
                let error = Error::new(ErrorKind::Config, BACKEND, "follow");
                return Err(error.with_message("a key is not empty; a prefix may be"));
            }
            What::Key(key) => (key, Vec::new()),
            What::Prefix(prefix) => (prefix, vec![("recurse", String::new())]),
        };
        if mode == ReadMode::Confirm {
            query.push(("consistent", String::new()));
        }
        if let Some(index) = index {
            query.push(("index", index.to_string()));
            query.push(("wait", format!("{}ms", WAIT.as_millis())));
        }
        self.client.keys("follow", key, query, index.map(|_| WAIT)).await
    }

    fn entry(&self, key: &Key) -> Result<KeyValue> {
        let entry = KeyValue::new(key.key.as_str(), key.value()?, key.modify_index);
        Ok(match &self.what {
            What::Key(_) => entry,
            What::Prefix(prefix) => entry.below(prefix),
        })
    }

    /// Not the folder itself, which Consul's web page writes as an empty key.
    fn wants(&self, key: &Key) -> bool {
        !matches!(&self.what, What::Prefix(prefix) if *prefix == key.key)
    }
}

#[async_trait]
impl Source for ConsulKvSource {
    type Item = KeyValue;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult<KeyValue>> {
        // Taken out: an answer that is an error, or dropped, leaves none (an index ahead of a server that was reset
        // would block for the whole wait).
        let asked = self.index.take().filter(|_| request.waits());
        let asked = asked.filter(|_| !self.ticket.is_shared());
        let answer = match self.ticket.alone(self.ask(request.mode, asked)).await {
            Some(answer) => answer?,
            None => self.ask(request.mode, None).await?,
        };
        if answer.meta.filtered_by_acls {
            let message = "the token does not see every key; it needs key:read of the whole prefix";
            let error = Error::new(ErrorKind::Denied, BACKEND, "follow");
            return Err(error.with_message(message));
        }
        let index = answer.meta.index.filter(|index| *index > 0);
        // One that went back, of a cluster that was restored or wiped, is not waited for; the keys are what there is.
        self.index = index.filter(|index| asked.is_none_or(|asked| *index >= asked));
        let keys = answer.keys.iter().filter(|key| self.wants(key));
        let set = ReadResult::set(keys.map(|key| self.entry(key)).collect());
        // A proxy that eats the header leaves nothing to wait for.
        Ok(if index.is_none() || self.ticket.is_shared() { set.refresh_in(POLL) } else { set })
    }
}

/// Below the 60 s after which many proxies close an idle connection. Consul adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(55);
/// How often to ask when waiting is not possible.
const POLL: Duration = Duration::from_secs(5);
