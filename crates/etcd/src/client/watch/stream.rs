use std::{collections::VecDeque, sync::Arc, time::Duration};

use etcd_client::{WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::time::{Instant, timeout};

use super::{Ended, Position};
use crate::{
    client::{
        MAX_MESSAGE,
        link::{Link, Links, bounded},
    },
    error::Failure,
    key::Range,
};

/// An open watch stream.
pub(super) struct Stream {
    link: Arc<Link>,
    /// The number of the token that it was opened with.
    token: u64,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    opened: Instant,
    heard: Instant,
    /// How often it was asked for progress since it was heard.
    n_asked: u32,
    /// What was asked for and is not yet created: the server answers in order, and says −1 where it refuses.
    uncreated: VecDeque<i64>,
}

/// What a message means; the number is the watch's.
pub(super) enum Said {
    Created(i64),
    Canceled(i64),
    Events(i64),
    Progress,
    /// The stream cannot be believed any more.
    Nonsense(&'static str),
}

impl Stream {
    /// Opens a stream with its first watch.
    pub(super) async fn open(
        links: &Links,
        id: i64,
        range: &Range,
        position: Position,
    ) -> Result<Self, Failure> {
        let link = links.link().await?;
        let token = link.token().await;
        let mut client = link.client().watch_client().max_decoding_message_size(MAX_MESSAGE);
        let watch = client.watch(range.start.clone(), Some(options(id, range, position)));
        let stream = match bounded(links.config().request_timeout, watch).await {
            Ok(stream) => stream,
            Err(failure) => {
                links.abandon(&link).await;
                return Err(failure);
            }
        };
        let (requests, responses) = stream.split();
        let now = Instant::now();
        Ok(Self {
            link,
            token,
            requests,
            responses,
            opened: now,
            heard: now,
            n_asked: 0,
            uncreated: VecDeque::from([id]),
        })
    }

    /// Adds a watch.
    pub(super) async fn create(
        &mut self,
        id: i64,
        range: &Range,
        position: Position,
    ) -> Result<(), Ended> {
        self.uncreated.push_back(id);
        let options = options(id, range, position);
        let sent = self.requests.watch(range.start.clone(), Some(options));
        sent_within(sent).await
    }

    pub(super) async fn cancel(&mut self, id: i64) -> Result<(), Ended> {
        sent_within(self.requests.cancel(id)).await
    }

    /// Waits for the next message.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn message(&mut self) -> Result<WatchResponse, Ended> {
        match self.responses.message().await {
            Ok(Some(message)) => {
                self.heard = Instant::now();
                self.n_asked = 0;
                Ok(message)
            }
            // A stream that ends as soon as it is opened would be opened without pause if that were no error.
            Ok(None) if self.opened.elapsed() > SHORT_LIFE => Err(Ended::Resync("stream closed")),
            Ok(None) => Err(failed(Failure::closed())),
            Err(error) => {
                let failure = Failure::from(error);
                if failure.is_message_too_large() {
                    return Err(Ended::Resync("too much to catch up with"));
                }
                Err(failed(failure))
            }
        }
    }

    /// When it has been silent for so long that it has to prove that it is alive.
    pub(super) fn idle_at(&self) -> Instant {
        self.heard + PROBE_EVERY * (self.n_asked + 1)
    }

    /// Asks for progress, unless that was asked for in vain.
    pub(super) async fn probe(&mut self) -> Result<(), Ended> {
        if self.n_asked == MAX_ASKED {
            return Err(Ended::Resync("stream silent"));
        }
        self.n_asked += 1;
        sent_within(self.requests.request_progress()).await
    }

    /// The revisions of headers are not compared: a creation overtakes events that were there before.
    pub(super) fn understand(&mut self, message: &WatchResponse) -> Said {
        let created = if message.created() { self.uncreated.pop_front() } else { None };
        match created.unwrap_or_else(|| message.watch_id()) {
            id if message.canceled() => match id {
                ..0 => Said::Nonsense("an unknown watch was canceled"),
                id => Said::Canceled(id),
            },
            id if message.created() => Said::Created(id),
            _ if message.events().is_empty() => Said::Progress,
            id => Said::Events(id),
        }
    }

    pub(super) async fn authenticate(&self, links: &Links) -> Result<(), Failure> {
        links.authenticate(&self.link, self.token).await
    }

    pub(super) async fn abandon(&self, links: &Links) {
        links.abandon(&self.link).await;
    }
}

/// The watch begins at the revision of the list, not behind it: a server from 3.5.22 on answers no progress request while a
/// watch of the stream waits for a revision that is still to come. What is told twice is ignored.
///
/// Fragments are not asked for, because the library does not say which one is the last: a set read in the middle of a
/// transaction would be seen. What a watch has to catch up with comes in one message, which [`MAX_MESSAGE`] bounds.
fn options(id: i64, range: &Range, position: Position) -> WatchOptions {
    WatchOptions::new()
        .with_watch_id(id)
        .with_range(range.end.clone())
        .with_start_revision(position.revision)
}

/// The channel behind it is bounded: a server that does not read fills it.
async fn sent_within(
    sent: impl Future<Output = Result<(), etcd_client::Error>>,
) -> Result<(), Ended> {
    match timeout(SEND_TIMEOUT, sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed(error.into())),
        Err(_elapsed) => Err(failed(Failure::timeout(SEND_TIMEOUT))),
    }
}

fn failed(failure: Failure) -> Ended {
    Ended::Failed(failure.into_error("watch"))
}

/// A stopped server is noticed within three of these. Thousands of idle processes ask a cluster this often.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// A watch that catches up lets progress wait, so one request without answer is not the end.
const MAX_ASKED: u32 = 2;
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
const SHORT_LIFE: Duration = Duration::from_secs(10);
