//! Follows keys by blocking queries.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tower_sd_core::{
    Error, ErrorKind, KeyValue, ReadMode, ReadRequest, ReadResult, Result, Source, async_trait,
};

use super::size_pause;
use crate::{
    BACKEND,
    client::{
        ConsulClient, Ticket,
        kv::{Key, KeysAnswer},
    },
};

/// The wire of a followed key, or of all keys below a path.
#[derive(Debug)]
pub(crate) struct KeySource {
    client: ConsulClient,
    ticket: Ticket,
    what: What,
    /// The last answer, while it can be trusted; `None` makes the next query answer immediately.
    index: Option<u64>,
    /// A large value that changes all the time is not read all the time.
    not_before: Instant,
}

#[derive(Debug)]
enum What {
    Key(String),
    Prefix(String),
}

impl KeySource {
    /// Follows a key, or all keys below a `path` that is empty or ends in a slash.
    pub(crate) fn new(client: &ConsulClient, path: &str) -> Self {
        let what = match path.is_empty() || path.ends_with('/') {
            true => What::Prefix(path.to_owned()),
            false => What::Key(path.to_owned()),
        };
        let (client, ticket) = (client.clone(), client.follow_keys());
        Self { client, ticket, what, index: None, not_before: Instant::now() }
    }

    async fn ask(&self, mode: ReadMode, index: Option<u64>) -> Result<KeysAnswer> {
        let (key, mut query) = match &self.what {
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
impl Source for KeySource {
    type Item = KeyValue;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult<KeyValue>> {
        if request.waits() {
            sleep_until(self.not_before).await;
        }
        // Taken out: an answer that is an error, or dropped, leaves none (an index ahead of a
        // server that was reset would block for the whole wait).
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
        if let (Some(index), Some(asked)) = (index, asked)
            && index < asked
        {
            return Ok(ReadResult::resync("the index went back"));
        }
        self.index = index;
        let pause = size_pause(answer.size);
        self.not_before = Instant::now() + pause;
        let keys = answer.keys.iter().filter(|key| self.wants(key));
        let set = ReadResult::set(keys.map(|key| self.entry(key)).collect());
        // A proxy that eats the header leaves nothing to wait for.
        let polls = index.is_none() || self.ticket.is_shared();
        Ok(if polls { set.refresh_in(POLL + pause) } else { set })
    }
}

/// Below the 60 s after which many proxies close an idle connection. Consul adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(55);
/// The interval of queries where waiting is not possible.
const POLL: Duration = Duration::from_secs(5);
