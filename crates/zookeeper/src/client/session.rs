//! The task of a session.
//!
//! Its connections, one after the other, until the last user leaves.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf, split},
    runtime::Handle,
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tower_sd_core::{Backoff, Secret, TaskGroup};
use tower_sd_net::{Io, TlsFailure};

use super::{
    calls::{Calls, Request},
    error::ClientError,
    frames::{Frames, Read},
    leavings::Leavings,
    settings::{Server, Settings},
    watches::Watches,
    wire::{self, Granted},
};

/// The task behind a client.
pub(super) struct Session {
    pub(super) settings: Arc<Settings>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) watches: Arc<Watches>,
    pub(super) leavings: Arc<Leavings>,
    /// For its own requests.
    pub(super) calls: Calls,
    pub(super) key: Key,
    pub(super) state: watch::Sender<SessionState>,
    pub(super) tasks: TaskGroup,
    pub(super) next_server: usize,
    /// The end of the last connection.
    pub(super) left_at: Instant,
    /// As the last connection has sent them.
    pub(super) credentials: Option<Secret>,
}

/// What proves the session to the servers.
#[derive(Debug, Default)]
pub(super) struct Key {
    id: i64,
    password: Vec<u8>,
    pub(super) timeout: Duration,
    /// The latest transaction that was seen: a server that has not seen it refuses the session.
    pub(super) last_zxid: i64,
    /// The latest transaction that was seen while all watches were set.
    pub(super) watched_zxid: i64,
}

/// The state of a session that its users see.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct SessionState {
    /// 0 before the first one.
    pub(crate) id: i64,
    /// As the server has granted it.
    pub(crate) timeout: Duration,
}

/// A connection that has the session.
pub(super) struct Connection {
    pub(super) read: ReadHalf<Io>,
    pub(super) write: WriteHalf<Io>,
    pub(super) frames: Frames,
    pub(super) server: Arc<str>,
}

impl Session {
    /// Keeps the session, for as long as it is polled.
    pub(super) async fn run(mut self) {
        let mut hasty = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        let mut refused = Backoff::new(MAX_PAUSE, MAX_PATIENCE);
        loop {
            let error = match self.connect().await {
                Ok(connection) => {
                    hasty.succeeded();
                    let error = self.exchange(connection).await;
                    self.left_at = Instant::now();
                    error
                }
                Err(error) => {
                    self.refuse_requests(&error);
                    error
                }
            };
            tracing::debug!(session = self.key.id, %error, "no connection");
            self.watches.trouble(&error);
            let pause = hasty.next_pause().max(self.patience());
            let pause = if error.is_permanent() { refused.next_pause() } else { pause };
            self.rest(pause, &error).await;
        }
    }

    /// A pause that the session does not need to be shorter: it has ended, or there was none yet.
    fn patience(&self) -> Duration {
        let absence = self.left_at.elapsed();
        match self.key.id != 0 && absence < self.key.timeout {
            true => Duration::ZERO,
            false => (absence / 4).min(MAX_PATIENCE).mul_f64(fastrand::f64()),
        }
    }

    /// Pauses; requests that would wait for long get the error instead.
    async fn rest(&mut self, pause: Duration, error: &ClientError) {
        let end = Instant::now() + pause;
        loop {
            let now = Instant::now();
            if end <= now + MAX_PAUSE {
                return sleep_until(end).await;
            }
            sleep_until(now + MAX_PAUSE).await;
            self.refuse_requests(error);
        }
    }

    pub(super) fn id(&self) -> i64 {
        self.key.id
    }

    /// Tries every server once, from the one after the last.
    async fn connect(&mut self) -> Result<Connection, ClientError> {
        let n_servers = self.settings.servers.len().max(1);
        let mut last = ClientError::Ended;
        for _ in 0..n_servers {
            let settings = Arc::clone(&self.settings);
            let Some(server) = settings.servers.get(self.next_server % n_servers) else { break };
            self.next_server = (self.next_server + 1) % n_servers;
            let bound = settings.connect_timeout;
            let opened = match timeout(bound, self.open(server)).await {
                Ok(opened) => opened,
                Err(_elapsed) => Err(ClientError::Timeout(bound)),
            };
            match opened {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error.at(&server.name),
            }
        }
        Err(last)
    }

    /// Connects to a server and resumes the session, or begins one.
    async fn open(&mut self, server: &Server) -> Result<Connection, ClientError> {
        let former = self.key.id;
        let connection = self.handshake(server).await?;
        if former != 0 && (connection.is_none() || self.key.id != former) {
            tracing::warn!(session = former, "session expired");
            self.watches.ended();
            self.leavings.clear();
            (self.key.last_zxid, self.key.watched_zxid) = (0, 0);
        }
        if let Some(connection) = connection {
            // ClickHouse's Keeper grants another session in place of one that goes on.
            return Ok(connection);
        }
        self.key = Key::default();
        self.handshake(server).await?.ok_or(ClientError::Closed)
    }

    /// Returns `None` if the session has expired.
    async fn handshake(&mut self, server: &Server) -> Result<Option<Connection>, ClientError> {
        self.credentials = self.settings.credentials().map_err(ClientError::Settings)?;
        let settings = &self.settings;
        let tls = settings.tls.as_ref();
        let dialled = settings.dialer.dial(&server.target, tls, &[]).await?;
        let (mut read, mut write) = split(dialled.io);
        let timeout_ms = settings.session_timeout.as_millis().try_into().unwrap_or(i32::MAX);
        let Key { id, password, last_zxid, .. } = &self.key;
        let mut hello = wire::connect(*last_zxid, timeout_ms, *id, password);
        if let Some(credentials) = &self.credentials {
            hello.extend(wire::auth("digest", credentials.expose().as_bytes()));
        }
        let sent = async {
            write.write_all(&hello).await?;
            write.flush().await
        };
        let sent = sent.await;
        let mut frames = Frames::new(settings.max_reply);
        // Also of a write that has failed the cause may be read.
        let answer = match frames.next(&mut read).await {
            Ok(Read::Frame(answer)) => answer,
            Ok(Read::TooLarge { n_bytes, .. }) => {
                return Err(ClientError::ReplyTooLarge { n_bytes, limit: settings.max_reply });
            }
            Err(error) => {
                if let (ClientError::Io(cause), Some(tls)) = (&error, tls)
                    && let Some(failure) = TlsFailure::find(&**cause)
                {
                    tls.suspect();
                    return Err(ClientError::Tls(Arc::new(failure)));
                }
                sent?;
                self.refused();
                return Err(error);
            }
        };
        let granted = wire::granted(&answer)?;
        if granted.is_read_only {
            return Err(ClientError::ReadOnly);
        }
        let timeout = u64::try_from(granted.timeout_ms).unwrap_or_default();
        if granted.session == 0 || timeout == 0 {
            return Ok(None);
        }
        let Key { last_zxid, watched_zxid, .. } = self.key;
        let timeout = Duration::from_millis(timeout);
        let Granted { session: id, password, .. } = granted;
        self.key = Key { id, password, timeout, last_zxid, watched_zxid };
        self.state.send_replace(SessionState { id, timeout });
        Ok(Some(Connection { read, write, frames, server: Arc::clone(&server.name) }))
    }

    /// A server has closed the connection in place of an answer: it has not seen our latest
    /// transaction. When that goes on for longer than the session can live, the ensemble was
    /// replaced by another one, or has lost its data.
    fn refused(&mut self) {
        if self.key.last_zxid > 0 && self.left_at.elapsed() > self.key.timeout {
            tracing::warn!(
                session = self.key.id,
                "the servers close every connection; they may have lost transactions"
            );
            (self.key.last_zxid, self.key.watched_zxid) = (0, 0);
        }
    }

    /// Whether another connection would be that of another user.
    pub(super) fn has_new_credentials(&self) -> bool {
        self.settings.credentials().is_ok_and(|credentials| credentials != self.credentials)
    }

    fn refuse_requests(&mut self, error: &ClientError) {
        while let Ok(request) = self.requests.try_recv() {
            let _gone = request.reply.send(Err(error.unconnected()));
        }
    }

    /// Ends the session by a task of its own, when this one is dropped. `output` is left to write.
    pub(super) fn close_later(&self, mut connection: Connection, mut output: BytesMut) {
        if Handle::try_current().is_err() {
            return;
        }
        self.tasks.spawn(|_stop| async move {
            output.extend(wire::close());
            let closed = timeout(CLOSE_TIMEOUT, async {
                connection.write.write_all(&output).await?;
                connection.write.flush().await?;
                while connection.frames.next(&mut connection.read).await.is_ok() {}
                Ok::<(), std::io::Error>(())
            });
            // What was not closed expires.
            drop(closed.await);
        });
    }
}

impl Key {
    /// Notes a transaction that was seen.
    pub(super) fn seen(&mut self, zxid: i64, are_watches_set: bool) {
        self.last_zxid = self.last_zxid.max(zxid);
        if are_watches_set {
            self.watched_zxid = self.last_zxid;
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Sessions live for seconds: a long pause would be their end.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// While no session lives; hundreds of processes may wait for the servers.
const MAX_PATIENCE: Duration = Duration::from_secs(15);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Watches are set in several batches, and a connection may break between two of them.
    #[test]
    fn watches_that_are_set_again_begin_where_all_were_set() {
        let mut key = Key::default();
        key.seen(5, true);
        key.seen(9, false);
        assert_eq!((key.last_zxid, key.watched_zxid), (9, 5));
        key.seen(7, true);
        assert_eq!((key.last_zxid, key.watched_zxid), (9, 9));
    }
}
