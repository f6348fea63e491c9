use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

use etcd_client::WatchResponse;
use tokio::{
    select,
    sync::mpsc::{self, UnboundedReceiver, error::TrySendError},
    time::sleep_until,
};
use tower_sd_core::Stop;

use super::{
    Change, Ended, Position,
    stream::{Said, Stream},
};
use crate::{
    client::link::Links,
    error::{Failure, Remedy},
    key::Range,
};

/// What the task is asked to do.
pub(super) enum Command {
    Watch(Start),
    Cancel(i64),
}

/// A watch that shall begin.
pub(super) struct Start {
    pub(super) id: i64,
    pub(super) range: Range,
    pub(super) position: Position,
    pub(super) changes: mpsc::Sender<Vec<Change>>,
    pub(super) ended: Arc<OnceLock<Ended>>,
}

/// A number that no watch of this process has had. Zero would let the server choose.
pub(super) fn next_id() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Serves watches until `stop`, or until nobody can ask for one any more.
pub(super) async fn hub(links: Arc<Links>, commands: UnboundedReceiver<Command>, stop: Stop) {
    let hub = Hub { links, watches: HashMap::new(), stream: None };
    select! {
        biased;
        () = stop.requested() => {}
        () = hub.run(commands) => {}
    }
}

struct Hub {
    links: Arc<Links>,
    watches: HashMap<i64, Watching>,
    stream: Option<Stream>,
}

struct Watching {
    position: Position,
    changes: mpsc::Sender<Vec<Change>>,
    ended: Arc<OnceLock<Ended>>,
}

impl Hub {
    async fn run(mut self, mut commands: UnboundedReceiver<Command>) {
        loop {
            let stream = &mut self.stream;
            let idle_at = stream.as_ref().map(Stream::idle_at);
            let message = async {
                match stream {
                    Some(stream) => stream.message().await,
                    None => pending().await,
                }
            };
            let idle = async {
                match idle_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            // Whoever asks waits for nobody: commands come before a flood of events.
            select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Watch(start)) => self.start(start).await,
                    Some(Command::Cancel(id)) => self.cancel(id).await,
                    None => return,
                },
                message = message => match message {
                    Ok(message) => self.take(&message).await,
                    Err(ended) => self.break_off(&ended).await,
                },
                () = idle => self.probe().await,
            }
            if self.watches.is_empty() {
                self.stream = None;
            }
        }
    }

    async fn start(&mut self, start: Start) {
        let watching =
            Watching { position: start.position, changes: start.changes, ended: start.ended };
        let result = match &mut self.stream {
            Some(stream) => stream.create(start.id, &start.range, start.position).await,
            None => match Stream::open(&self.links, start.id, &start.range, start.position).await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    Ok(())
                }
                Err(failure) => return watching.end(Ended::Failed(failure.into_error("watch"))),
            },
        };
        self.watches.insert(start.id, watching);
        if let Err(ended) = result {
            self.break_off(&ended).await;
        }
    }

    /// Ends a watch that the server still serves.
    async fn give_up(&mut self, id: i64, ended: Ended) {
        if let Some(watching) = self.watches.get(&id) {
            watching.ended.set(ended).ok();
        }
        self.cancel(id).await;
    }

    async fn cancel(&mut self, id: i64) {
        if self.watches.remove(&id).is_none() || self.watches.is_empty() {
            return;
        }
        if let Some(stream) = &mut self.stream
            && let Err(ended) = stream.cancel(id).await
        {
            self.break_off(&ended).await;
        }
    }

    async fn take(&mut self, message: &WatchResponse) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        match stream.understand(message) {
            Said::Created(id) => {
                let position = Position::of(message.header());
                let watching = self.watches.get(&id);
                if let Some(reason) = watching.and_then(|it| it.position.gone(position)) {
                    self.give_up(id, Ended::Resync(reason)).await;
                }
            }
            Said::Canceled(id) => self.canceled(id, message).await,
            Said::Events(id) => self.deliver(id, Change::of_events(message.events())).await,
            Said::Progress => {}
            Said::Nonsense(reason) => self.break_off(&Ended::Resync(reason)).await,
        }
    }

    async fn deliver(&mut self, id: i64, changes: Vec<Change>) {
        let Some(watching) = self.watches.get(&id) else {
            return;
        };
        match watching.changes.try_send(changes) {
            // Who has gone has said so: the command to cancel it is on its way.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => self.give_up(id, Ended::Resync("fell behind")).await,
        }
    }

    async fn canceled(&mut self, id: i64, message: &WatchResponse) {
        let reason = message.cancel_reason();
        if message.compact_revision() > 0 || reason.contains("has been compacted") {
            return self.end(id, Ended::Resync("compacted"));
        }
        let failure = Failure::of_cancel(reason);
        if failure.remedy != Remedy::Authenticate {
            return self.end(id, Ended::Failed(failure.into_error("watch")));
        }
        // The stream has the old token for ever; what it watches already goes on, but nothing can be added to it.
        let Some(stream) = self.stream.take() else {
            return;
        };
        let ended = match stream.authenticate(&self.links).await {
            Ok(()) => Ended::Resync("token expired"),
            Err(failure) => Ended::Failed(failure.into_error("watch")),
        };
        self.end_all(&ended);
    }

    /// Asks a silent stream whether it is alive.
    async fn probe(&mut self) {
        if let Some(stream) = &mut self.stream
            && let Err(ended) = stream.probe().await
        {
            self.break_off(&ended).await;
        }
    }

    /// The stream is of no use any more, and the connection below it is suspect.
    async fn break_off(&mut self, ended: &Ended) {
        if let Some(stream) = self.stream.take() {
            stream.abandon(&self.links).await;
        }
        self.end_all(ended);
    }

    fn end(&mut self, id: i64, ended: Ended) {
        if let Some(watching) = self.watches.remove(&id) {
            watching.end(ended);
        }
    }

    fn end_all(&mut self, ended: &Ended) {
        for (_, watching) in self.watches.drain() {
            watching.end(ended.clone());
        }
    }
}

impl Watching {
    /// What was delivered before is still read; then the reader learns why it is over.
    fn end(self, ended: Ended) {
        self.ended.set(ended).ok();
    }
}

impl Position {
    /// Why a watch from here cannot be believed if the store is at `now`: a start in the future is accepted silently, so
    /// a store that went back would be silent for as long as it takes to catch up.
    fn gone(self, now: Self) -> Option<&'static str> {
        if now.cluster != self.cluster {
            Some("another cluster")
        } else if now.revision < self.revision {
            Some("the revision went back")
        } else {
            None
        }
    }
}
