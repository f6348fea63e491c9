use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use etcd_client::{WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::time::{Instant, timeout};

use super::update::Position;
use crate::{
    client::{
        connection::{Connection, MAX_MESSAGE},
        members::{Members, bounded},
    },
    error::{Failure, Remedy},
    key::Range,
};

/// An open watch stream.
pub(super) struct Stream {
    pub(super) connection: Arc<Connection>,
    /// The number of the token that it was opened with.
    pub(super) generation: u64,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    heard: Instant,
    probed: Instant,
    /// How often it was probed since its last message.
    n_probed: u32,
    /// When everything on it was last known to be well.
    proved: Instant,
    hastened: bool,
    /// Our numbers of watches that were requested and not yet created: the server answers in order.
    uncreated: VecDeque<i64>,
    /// The server's numbers of watches, and ours.
    ids: HashMap<i64, i64>,
    numbering: Numbering,
}

/// Who numbers the watches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Numbering {
    Unknown,
    /// The server uses our numbers, as etcd does.
    Ours,
    /// The server has numbers of its own, as etcd's gRPC proxy has. It creates watches in any
    /// order, and answers no request for progress.
    Theirs,
}

/// The meaning of a message; the number is ours of the watch.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Meaning {
    Created(i64),
    Canceled(i64),
    Events(i64),
    Progress,
    /// Of a watch that is no longer there.
    Nothing,
    /// The stream cannot be trusted any more.
    Nonsense,
}

impl Stream {
    /// Opens a stream with its first watch.
    pub(super) async fn open(
        members: &Members,
        id: i64,
        range: &Range,
        position: Position,
    ) -> Result<Self, Failure> {
        let (connection, _) = members.connection().await?;
        let generation = members.token_generation();
        let client = connection.client().watch_client();
        let mut client = client.max_decoding_message_size(MAX_MESSAGE);
        let watch = client.watch(range.start.clone(), Some(options(id, range, position)));
        let stream = match bounded(members.config().request_timeout, watch).await {
            Ok(stream) => stream,
            Err(failure) => {
                match failure.remedy {
                    Remedy::Authenticate => members.authenticate(&connection, generation).await?,
                    _ => members.abandon(&connection).await,
                }
                return Err(connection.explain(failure));
            }
        };
        let (requests, responses) = stream.split();
        let now = Instant::now();
        Ok(Self {
            connection,
            generation,
            requests,
            responses,
            heard: now,
            probed: now,
            n_probed: 0,
            proved: now,
            hastened: false,
            uncreated: VecDeque::from([id]),
            ids: HashMap::new(),
            numbering: Numbering::Unknown,
        })
    }

    /// Whether another watch may be requested: where watches are not numbered by us, one at a time.
    pub(super) fn may_create(&self) -> bool {
        self.numbering == Numbering::Ours || self.uncreated.is_empty()
    }

    pub(super) async fn create(
        &mut self,
        id: i64,
        range: &Range,
        position: Position,
    ) -> Result<(), Failure> {
        self.uncreated.push_back(id);
        let options = options(id, range, position);
        let sent = self.requests.watch(range.start.clone(), Some(options));
        sent_within(sent).await
    }

    pub(super) async fn cancel(&mut self, id: i64) -> Result<(), Failure> {
        // One that is not created yet is cancelled when it is.
        let theirs = self.ids.iter().find(|(_, ours)| **ours == id).map(|(theirs, _)| *theirs);
        match theirs {
            Some(theirs) => {
                self.ids.remove(&theirs);
                sent_within(self.requests.cancel(theirs)).await
            }
            None => Ok(()),
        }
    }

    /// Waits for the next message; the end of the stream is a failure.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn message(&mut self) -> Result<WatchResponse, Failure> {
        let message = self.responses.message().await?.ok_or_else(Failure::closed)?;
        self.heard = Instant::now();
        self.n_probed = 0;
        Ok(message)
    }

    pub(super) fn understand(&mut self, message: &WatchResponse) -> Meaning {
        let theirs = message.watch_id();
        let created = if message.created() { self.uncreated.pop_front() } else { None };
        if let Some(ours) = created {
            if message.canceled() {
                return Meaning::Canceled(ours);
            }
            self.ids.insert(theirs, ours);
            if self.numbering == Numbering::Unknown {
                let is_ours = theirs == ours;
                self.numbering = if is_ours { Numbering::Ours } else { Numbering::Theirs };
            }
            return Meaning::Created(ours);
        }
        match self.ids.get(&theirs) {
            Some(ours) if message.canceled() => Meaning::Canceled(*ours),
            None if message.canceled() && theirs < 0 => Meaning::Nonsense,
            _ if message.canceled() => Meaning::Nothing,
            _ if message.events().is_empty() => Meaning::Progress,
            Some(ours) => Meaning::Events(*ours),
            None => Meaning::Nothing,
        }
    }

    /// When it is probed: after some silence, and some time after the last proof, since a busy
    /// watch proves nothing for others.
    pub(super) fn probe_at(&self) -> Instant {
        if self.hastened {
            return self.heard;
        }
        let due = (self.heard + PROBE_INTERVAL).min(self.proved + PROOF_INTERVAL);
        due.max(self.probed + PROBE_INTERVAL)
    }

    /// Requests progress, unless the server does not know that: then it is left to the caller.
    pub(super) async fn probe(&mut self) -> Result<Probe, Failure> {
        self.n_probed += 1;
        self.probed = Instant::now();
        self.hastened = false;
        match self.numbering {
            _ if self.n_probed > MAX_PROBES => Ok(Probe::Silent),
            Numbering::Theirs => Ok(Probe::ReadInstead),
            Numbering::Unknown | Numbering::Ours => {
                sent_within(self.requests.request_progress()).await.map(|()| Probe::Requested)
            }
        }
    }

    /// Records that it has reported everything.
    pub(super) fn prove(&mut self) {
        self.heard = Instant::now();
        self.proved = self.heard;
        self.n_probed = 0;
    }

    /// Has it probed immediately.
    pub(super) fn hasten(&mut self) {
        self.hastened = true;
    }

    pub(super) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    pub(super) fn is_of_proxy(&self) -> bool {
        self.numbering == Numbering::Theirs
    }

    pub(super) fn is_created(&self, id: i64) -> bool {
        !self.uncreated.contains(&id)
    }
}

/// What a probe came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Probe {
    Requested,
    /// The server answers no such request.
    ReadInstead,
    /// All earlier ones are unanswered.
    Silent,
}

/// The watch begins at the revision of the list, not behind it: a server from 3.5.22 on answers no
/// progress request while a watch of the stream waits for a revision that is still to come. What is
/// reported twice is ignored.
///
/// Fragments are not requested, because the library does not show which one is the last: a set read
/// in the middle of a transaction would be seen. What a watch has to catch up with comes in one
/// message, which [`MAX_MESSAGE`] bounds.
fn options(id: i64, range: &Range, position: Position) -> WatchOptions {
    WatchOptions::new()
        .with_watch_id(id)
        .with_range(range.end.clone())
        .with_start_revision(position.revision)
}

/// The channel behind it is bounded: a server that does not read fills it.
async fn sent_within(
    sent: impl Future<Output = Result<(), etcd_client::Error>>,
) -> Result<(), Failure> {
    match timeout(SEND_TIMEOUT, sent).await {
        Ok(sent) => Ok(sent?),
        Err(_elapsed) => Err(Failure::timeout(SEND_TIMEOUT)),
    }
}

/// A stopped server is noticed within three of these. Thousands of idle processes probe a cluster
/// this often.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// A watch that catches up lets progress wait, so one request without answer is not the end.
const MAX_PROBES: u32 = 2;
const PROOF_INTERVAL: Duration = Duration::from_secs(15);
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
