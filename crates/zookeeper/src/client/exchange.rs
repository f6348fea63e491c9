//! Requests and answers on one connection.

use std::{collections::VecDeque, mem, pin::pin, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncWriteExt, WriteHalf},
    select,
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tower_sd_net::Io;

use super::{
    calls::{Reply, Request},
    error::{ClientError, Refusal},
    frames::Read,
    jute::Malformed,
    session::{Connection, Session},
    watches::{Arm, Batch},
    wire::{self, Header},
};

/// A connection in use.
///
/// # Drop
///
/// The session is closed, unless the connection is broken.
struct Exchange<'a> {
    session: &'a mut Session,
    /// `None` once it is broken.
    connection: Option<Connection>,
    /// Sent, in the order of their answers.
    unanswered: VecDeque<Sent>,
    output: BytesMut,
    /// Written, and perhaps in the buffer of TLS.
    is_unflushed: bool,
    last_xid: i32,
    /// Batches of watches whose setting is not confirmed yet.
    n_batches: usize,
    sent_at: Instant,
    received_at: Instant,
}

/// A request without an answer.
struct Sent {
    xid: i32,
    watch: Option<(Arm, String)>,
    reply: oneshot::Sender<Result<Reply, ClientError>>,
}

impl Session {
    /// Exchanges requests and answers until the connection breaks, and returns why.
    pub(super) async fn exchange(&mut self, connection: Connection) -> ClientError {
        let (leavings, calls) = (Arc::clone(&self.leavings), self.calls.clone());
        let mut removing = pin!(leavings.remove(&calls));
        let mut exchange = Exchange::new(self, connection);
        exchange.set_watches();
        let error = loop {
            select! {
                step = exchange.step() => if let Err(error) = step {
                    break error;
                },
                never = &mut removing => match never {},
            }
        };
        exchange.fail(error)
    }
}

impl<'a> Exchange<'a> {
    fn new(session: &'a mut Session, connection: Connection) -> Self {
        let now = Instant::now();
        Self {
            session,
            connection: Some(connection),
            unanswered: VecDeque::new(),
            output: BytesMut::new(),
            is_unflushed: false,
            last_xid: 0,
            n_batches: 0,
            sent_at: now,
            received_at: now,
        }
    }

    /// Sets the watches of a session that goes on; the server reports what they have missed.
    fn set_watches(&mut self) {
        let since = self.session.key.watched_zxid;
        let batches = self.session.watches.to_set();
        self.n_batches = batches.len();
        for Batch { data, absent, children, .. } in &batches {
            self.output.extend(wire::set_watches(since, data, absent, children));
        }
        if batches.is_empty() {
            self.session.watches.restored();
        }
    }

    /// Reads, writes, takes a request, or pings: what is possible first.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    async fn step(&mut self) -> Result<(), ClientError> {
        let Self { session, connection, output, is_unflushed, .. } = self;
        let Some(Connection { read, write, frames, .. }) = connection else {
            return Err(ClientError::Closed);
        };
        let has_room = output.len() < MAX_OUTPUT && self.unanswered.len() < MAX_UNANSWERED;
        let session_timeout = session.key.timeout;
        let silence = session_timeout * 2 / 3;
        select! {
            read = frames.next(read) => {
                let read = read?;
                self.received_at = Instant::now();
                self.receive(read)
            }
            written = pass_on(write, output), if !output.is_empty() || *is_unflushed => {
                *is_unflushed = written?;
                self.sent_at = Instant::now();
                Ok(())
            }
            request = session.requests.recv(), if has_room => {
                self.send(request.ok_or(ClientError::Ended)?);
                Ok(())
            }
            () = sleep_until(self.sent_at + session_timeout / 3) => {
                output.extend(wire::ping());
                self.sent_at = Instant::now();
                Ok(())
            }
            () = sleep_until(self.received_at + silence) => Err(ClientError::Timeout(silence)),
        }
    }

    fn send(&mut self, request: Request) {
        if request.reply.is_closed() {
            return;
        }
        self.last_xid = self.last_xid.checked_add(1).unwrap_or(1);
        let Request { frame, watch, reply } = request;
        let n_bytes = frame.n_bytes();
        let limit = self.session.settings.max_request;
        if n_bytes > limit {
            let _gone = reply.send(Err(ClientError::RequestTooLarge { n_bytes, limit }));
            return;
        }
        self.output.extend(frame.numbered(self.last_xid));
        self.unanswered.push_back(Sent { xid: self.last_xid, watch, reply });
    }

    fn receive(&mut self, read: Read) -> Result<(), ClientError> {
        let limit = self.session.settings.max_reply;
        let (frame, too_large) = match read {
            Read::Frame(frame) => (frame, None),
            Read::TooLarge { beginning, n_bytes } => {
                (beginning, Some(ClientError::ReplyTooLarge { n_bytes, limit }))
            }
        };
        let (header, body) = wire::answer(&frame)?;
        let Header { xid, zxid, error } = header;
        self.session.key.seen(zxid, self.n_batches == 0);
        match xid {
            wire::PING_XID => Ok(()),
            wire::EVENT_XID => {
                self.session.watches.report(wire::event(body)?);
                Ok(())
            }
            wire::AUTH_XID if error == 0 => Ok(()),
            wire::AUTH_XID => Err(ClientError::Refused(Refusal::AuthFailed)),
            wire::SET_WATCHES_XID if error == 0 => {
                self.n_batches = self.n_batches.saturating_sub(1);
                if self.n_batches == 0 {
                    self.session.watches.restored();
                }
                Ok(())
            }
            wire::SET_WATCHES_XID => Err(ClientError::Refused(Refusal::of(error))),
            _ => self.answer(header, too_large.map_or_else(|| Ok(frame.slice_ref(body)), Err)),
        }
    }

    /// Passes an answer on; one that is too large is an error of its request alone.
    fn answer(
        &mut self,
        header: Header,
        body: Result<Bytes, ClientError>,
    ) -> Result<(), ClientError> {
        let sent = self.unanswered.pop_front().filter(|sent| sent.xid == header.xid);
        let Sent { watch, reply, .. } = sent.ok_or(Malformed)?;
        let refusal = (header.error != 0).then(|| Refusal::of(header.error));
        if let Some((arm, path)) = watch {
            match (arm, refusal) {
                (Arm::Absent, Some(Refusal::NoNode)) | (Arm::Data | Arm::Children, None) => {
                    self.session.watches.armed(arm, path);
                }
                (Arm::Absent, None) => self.session.watches.armed(Arm::Data, path),
                _ => {}
            }
        }
        let answer = match refusal {
            None => {
                let session = self.session.id();
                body.map(|body| Reply { session, zxid: header.zxid, body })
            }
            Some(refusal) => Err(ClientError::Refused(refusal)),
        };
        let ends = match refusal {
            // The connection is of no more use.
            Some(Refusal::SessionExpired | Refusal::SessionMoved) => answer.as_ref().err().cloned(),
            // The password was rotated: the session goes on with a connection that has the new one.
            Some(Refusal::NoAuth) if self.session.has_new_credentials() => {
                Some(ClientError::Closed)
            }
            _ => None,
        };
        let _gone = reply.send(answer);
        ends.map_or(Ok(()), Err)
    }

    /// Gives the connection up: requests without an answer may have taken effect.
    fn fail(&mut self, error: ClientError) -> ClientError {
        let error = match self.connection.take() {
            Some(connection) => error.at(&connection.server),
            None => error,
        };
        for Sent { reply, .. } in self.unanswered.drain(..) {
            let _gone = reply.send(Err(error.unanswered()));
        }
        error
    }
}

/// Writes a part of the output, or flushes; returns whether it has written.
///
/// # Cancel safety
///
/// Cancel safe.
async fn pass_on(write: &mut WriteHalf<Io>, output: &mut BytesMut) -> Result<bool, ClientError> {
    if output.is_empty() {
        write.flush().await?;
        return Ok(false);
    }
    match write.write_buf(output).await? {
        0 => Err(ClientError::Closed),
        _ => Ok(true),
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.session.close_later(connection, mem::take(&mut self.output));
        }
    }
}

/// Requests wait in the queue beyond this many bytes, or requests.
const MAX_OUTPUT: usize = 1 << 20;
const MAX_UNANSWERED: usize = 1000;
