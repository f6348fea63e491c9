use std::{future::pending, sync::Arc, time::Duration};

use etcd_client::{Client, GetOptions, WatchResponse};
use tokio::{
    select,
    sync::{
        Notify,
        mpsc::{Receiver, error::TrySendError},
    },
    time::{Instant, sleep_until},
};
use tower_sd_core::{Backoff, Error};

use super::{
    change::Change,
    stream::{Meaning, Probe, Stream},
    table::{Table, Watching},
    update::{Ended, OTHER_CLUSTER, Position, Update},
};
use crate::{
    client::members::Members,
    error::{Failure, Remedy},
    key::Range,
};

/// Serves watches for as long as others can be started.
pub(super) async fn multiplex(
    members: Arc<Members>,
    starts: Receiver<Watching>,
    dropped: Arc<Notify>,
) {
    Multiplexer::new(members).run(starts, &dropped).await;
}

/// The watches of one client, on one stream at a time.
///
/// A stream that ends is replaced, at the next member if there is another one, and its watches go
/// on from their positions.
struct Multiplexer {
    members: Arc<Members>,
    table: Table,
    stream: Option<Stream>,
    /// When the next stream may be opened.
    open_at: Instant,
    backoff: Backoff,
    /// Streams since the last proof that could not be opened, or ended.
    n_failures: usize,
    /// What the watches were sent as [`Update::Trouble`].
    trouble: Option<Error>,
    /// When the watches were last sent [`Update::Alive`].
    alive_at: Instant,
    /// The stream has reported everything up to here.
    proof: Position,
}

impl Multiplexer {
    fn new(members: Arc<Members>) -> Self {
        let now = Instant::now();
        Self {
            members,
            table: Table::default(),
            stream: None,
            open_at: now,
            backoff: Backoff::new(FIRST_PAUSE, MAX_PAUSE),
            n_failures: 0,
            trouble: None,
            alive_at: now,
            proof: Position::UNKNOWN,
        }
    }

    async fn run(mut self, mut starts: Receiver<Watching>, dropped: &Notify) {
        loop {
            let wake_at = match &self.stream {
                Some(stream) => Some(stream.probe_at()),
                None => (!self.table.is_empty()).then_some(self.open_at),
            };
            let wake = async {
                match wake_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            let stream = &mut self.stream;
            let message = async {
                match stream {
                    Some(stream) => stream.message().await,
                    None => pending().await,
                }
            };
            // New watches come first: they do not wait for a flood of events.
            let result = select! {
                biased;
                start = starts.recv() => match start {
                    Some(start) => {
                        self.add(start);
                        while let Ok(start) = starts.try_recv() {
                            self.add(start);
                        }
                        match self.stream {
                            None if self.open_at <= Instant::now() => self.open().await,
                            _ => self.send().await,
                        }
                    }
                    None => return,
                },
                () = dropped.notified() => self.sweep().await,
                message = message => match message {
                    Ok(message) => self.take(&message).await,
                    Err(failure) => Err(failure),
                },
                () = wake => match self.stream {
                    Some(_) => self.probe().await,
                    None => self.open().await,
                },
            };
            if let Err(failure) = result {
                self.replace_stream(failure).await;
            }
            if self.table.is_empty() {
                self.stream = None;
                self.trouble = None;
            }
        }
    }

    fn add(&mut self, start: Watching) {
        if let Some(error) = &self.trouble {
            start.updates.try_send(Update::Trouble(error.clone())).ok();
        }
        self.table.add(start);
    }

    /// Opens a stream, with the first of the watches.
    async fn open(&mut self) -> Result<(), Failure> {
        self.proof = Position::UNKNOWN;
        self.table.all_unsent();
        if let Some((id, watch)) = self.table.next_unsent() {
            let opening = Stream::open(&self.members, id, &watch.range, watch.position);
            self.stream = Some(opening.await?);
        }
        self.send().await
    }

    /// Requests the watches that the stream has not been sent, as far as it may.
    async fn send(&mut self) -> Result<(), Failure> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        while stream.may_create() && !self.table.all_sent() {
            if let Some((id, watch)) = self.table.next_unsent() {
                stream.create(id, &watch.range, watch.position).await?;
            }
        }
        Ok(())
    }

    /// Ends the watches that were dropped.
    async fn sweep(&mut self) -> Result<(), Failure> {
        // All of them first: the stream may fail, and those that are left go on with another one.
        let dropped = self.table.take_dropped();
        for id in dropped {
            self.cancel(id).await?;
        }
        Ok(())
    }

    /// Ends a watch that the server may still serve.
    async fn cancel(&mut self, id: i64) -> Result<(), Failure> {
        self.table.remove(id);
        match &mut self.stream {
            // The stream ends with its last watch.
            Some(stream) if !self.table.is_empty() => stream.cancel(id).await,
            _ => Ok(()),
        }
    }

    async fn take(&mut self, message: &WatchResponse) -> Result<(), Failure> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        let meaning = stream.understand(message);
        let now = Position::of(message.header());
        if !self.proof.is_of_cluster(now) {
            self.table.end_all(&Ended::Resync(OTHER_CLUSTER));
            return Ok(());
        }
        self.proof.cluster = self.proof.cluster.max(now.cluster);
        match meaning {
            Meaning::Created(id) => self.created(id, now).await?,
            Meaning::Canceled(id) => self.canceled(id, message).await?,
            Meaning::Events(id) => self.deliver(id, Change::of_events(message.events())).await?,
            // The revisions of other messages may be lower: a creation overtakes events.
            Meaning::Progress => self.proved_at(now),
            Meaning::Nothing => {}
            Meaning::Nonsense => return Err(Failure::closed()),
        }
        Ok(())
    }

    async fn created(&mut self, id: i64, now: Position) -> Result<(), Failure> {
        let Some(watch) = self.table.get(id) else {
            // It was dropped meanwhile.
            self.cancel(id).await?;
            return self.send().await;
        };
        let position = watch.position;
        if position.lost_at(now).is_some() {
            // The member may only be behind another one; the majority is not.
            let now = self.read(&watch.range).await?;
            if let Some(reason) = position.lost_at(now) {
                self.table.end(id, Ended::Resync(reason));
                self.cancel(id).await?;
            }
        }
        self.send().await?;
        if self.trouble.is_some()
            && self.table.all_sent()
            && let Some(stream) = &mut self.stream
        {
            stream.hasten();
        }
        Ok(())
    }

    async fn deliver(&mut self, id: i64, changes: Vec<Change>) -> Result<(), Failure> {
        let Some(watch) = self.table.get_mut(id) else {
            return Ok(());
        };
        let latest = changes.iter().map(|it| it.mod_revision).max();
        watch.position.revision = watch.position.revision.max(latest.unwrap_or_default());
        match watch.updates.try_send(Update::Changes(changes)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => self.cancel(id).await,
            Err(TrySendError::Full(_)) => {
                self.table.end(id, Ended::Resync("fell behind"));
                self.cancel(id).await
            }
        }
    }

    /// Everything up to `now` was reported, or nearly so: servers before 3.5.8 have reported
    /// progress ahead of events (etcd-io/etcd#15220). So positions move to that of the proof
    /// before.
    ///
    /// Behind a gRPC proxy it proves that the store can be reached. Watches there have stayed
    /// silent while reads went on (etcd-io/etcd#18231): so their followers verify themselves.
    fn proved_at(&mut self, now: Position) {
        if let Some(reason) = self.proof.lost_at(now) {
            return self.table.end_all(&Ended::Resync(reason));
        }
        let Some(stream) = &mut self.stream else {
            return;
        };
        stream.prove();
        self.n_failures = 0;
        let of_watches = !stream.is_of_proxy();
        if of_watches {
            self.table.advance(self.proof.revision, |id| stream.is_created(id));
        }
        self.proof = Position { cluster: self.proof.cluster.max(now.cluster), ..now };
        let is_due = of_watches && self.alive_at.elapsed() >= ALIVE_INTERVAL;
        if (is_due || self.trouble.is_some()) && self.table.all_sent() {
            self.trouble = None;
            self.alive_at = Instant::now();
            self.table.broadcast(|| Update::Alive);
        }
    }

    async fn canceled(&mut self, id: i64, message: &WatchResponse) -> Result<(), Failure> {
        let reason = message.cancel_reason();
        let failure = Failure::of_cancel(reason);
        if message.compact_revision() > 0 || reason.contains("has been compacted") {
            self.table.end(id, Ended::Resync("compacted"));
        } else if failure.remedy == Remedy::None {
            self.table.end(id, Ended::Failed(failure.into_error("watch")));
        } else if self.table.get(id).is_some() {
            // The stream keeps its old token, or its member has lost the leader.
            return Err(failure);
        }
        self.send().await
    }

    /// Probes a silent stream. With other members it is left soon. A stall of the only one is
    /// waited for: a new connection and new lists would only add to its load.
    async fn probe(&mut self) -> Result<(), Failure> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        match stream.probe().await? {
            Probe::Requested => {}
            Probe::ReadInstead => {
                let silence = stream.silence();
                if let Some(watch) = self.table.first() {
                    match self.read(&watch.range).await {
                        Ok(now) => self.proved_at(now),
                        Err(failure) if self.is_waited_for(silence) => self.report(failure),
                        Err(failure) => return Err(failure),
                    }
                }
            }
            Probe::Silent => {
                let silence = stream.silence();
                let failure = stream.connection.explain(Failure::silent(silence));
                if !self.is_waited_for(silence) {
                    return Err(failure);
                }
                self.report(failure);
            }
        }
        Ok(())
    }

    fn is_waited_for(&self, silence: Duration) -> bool {
        self.members.len() == 1 && silence < MAX_STALL
    }

    /// The position of the store, with the majority's agreement.
    async fn read(&self, range: &Range) -> Result<Position, Failure> {
        let read = |mut client: Client| {
            let key = range.start.clone();
            let options = GetOptions::new().with_count_only();
            async move { client.get(key, Some(options)).await }
        };
        let answer = self.members.call(read).await?;
        Ok(Position::of(answer.header()))
    }

    /// The stream has ended, or is of no use any more: the watches wait for another one.
    async fn replace_stream(&mut self, mut failure: Failure) {
        if let Some(stream) = self.stream.take() {
            if failure.is_message_too_large() {
                self.members.abandon(&stream.connection).await;
                return self.table.end_all(&Ended::Resync("too much to catch up with"));
            }
            if failure.remedy == Remedy::Authenticate {
                let authenticating =
                    self.members.authenticate(&stream.connection, stream.generation);
                if let Err(refused) = authenticating.await {
                    failure = refused;
                }
            } else {
                self.members.abandon(&stream.connection).await;
            }
            failure = stream.connection.explain(failure);
        }
        self.n_failures += 1;
        let mut pause = self.backoff.next_pause();
        if !failure.is_transient() {
            // A setting or a permission has to change first.
            pause = pause.max(DENIED_PAUSE);
        }
        self.open_at = Instant::now() + pause;
        if self.n_failures > self.members.len() || !failure.is_transient() {
            self.report(failure);
        }
    }

    /// Reports trouble to the watches, once.
    fn report(&mut self, failure: Failure) {
        if self.trouble.is_none() {
            let error = failure.into_error("watch");
            self.table.broadcast(|| Update::Trouble(error.clone()));
            self.trouble = Some(error);
        }
    }
}

/// All clients of a member that restarts open their streams within this.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(5);
const DENIED_PAUSE: Duration = Duration::from_secs(15);
/// Pings end a connection that is really broken sooner than this.
const MAX_STALL: Duration = Duration::from_secs(20);
const ALIVE_INTERVAL: Duration = Duration::from_secs(10);
