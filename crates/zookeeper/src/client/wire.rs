//! Requests and answers, as ZooKeeper's `zookeeper.jute` defines them.

use super::jute::{LENGTH, Malformed, Reader, Writer};

/// A request, whose number is set when it is sent.
#[derive(Debug)]
pub(super) struct Frame(Vec<u8>);

/// The bytes of a [`Header`].
pub(super) const HEADER: usize = 16;

/// What an answer begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) xid: i32,
    pub(super) zxid: i64,
    pub(super) error: i32,
}

/// A session, as the server has granted it.
#[derive(Clone, Debug)]
pub(super) struct Granted {
    /// 0: the session that was requested has ended.
    pub(super) session: i64,
    pub(super) timeout_ms: i32,
    pub(super) password: Vec<u8>,
    pub(super) is_read_only: bool,
}

/// What a watch reports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Event {
    pub(super) kind: EventKind,
    pub(super) path: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum EventKind {
    Created,
    Deleted,
    DataChanged,
    ChildrenChanged,
    /// Of the session, or of a later protocol.
    Other,
}

/// The state of a node.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Stat {
    /// The transaction that has created it.
    pub(crate) czxid: i64,
    /// The transaction that has written its data last.
    pub(crate) mzxid: i64,
    /// How often its data was written.
    pub(crate) version: i32,
    /// The session that it belongs to; 0 for a node that outlives sessions.
    pub(crate) owner: i64,
    /// The transaction that has added or removed a child last.
    pub(crate) pzxid: i64,
}

/// The kind of a new node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CreateMode {
    Persistent,
    Ephemeral,
    /// Removed by the server some time after its last child; since ZooKeeper 3.5.
    Container,
}

/// The access to new nodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access {
    /// All may do everything.
    Open,
    /// The authenticated creator may do everything, others may read.
    Creator,
}

impl Frame {
    pub(super) fn create(path: &str, data: &[u8], mode: CreateMode, access: Access) -> Self {
        let (op, flags) = match mode {
            CreateMode::Persistent => (CREATE, 0),
            CreateMode::Ephemeral => (CREATE, 1),
            CreateMode::Container => (CREATE_CONTAINER, 4),
        };
        let writer = request(op).text(path).buffer(data);
        let writer = match access {
            Access::Open => writer.int(1).int(ALL).text("world").text("anyone"),
            Access::Creator => {
                let readers = writer.int(2).int(READ).text("world").text("anyone");
                readers.int(ALL).text("auth").text("")
            }
        };
        Self(writer.int(flags).finish())
    }

    pub(super) fn delete(path: &str, version: i32) -> Self {
        Self(request(DELETE).text(path).int(version).finish())
    }

    pub(super) fn set(path: &str, data: &[u8], version: i32) -> Self {
        Self(request(SET_DATA).text(path).buffer(data).int(version).finish())
    }

    pub(super) fn exists(path: &str, watch: bool) -> Self {
        Self(request(EXISTS).text(node(path)).flag(watch).finish())
    }

    pub(super) fn get(path: &str, watch: bool) -> Self {
        Self(request(GET_DATA).text(node(path)).flag(watch).finish())
    }

    pub(super) fn children(path: &str, watch: bool) -> Self {
        Self(request(GET_CHILDREN).text(node(path)).flag(watch).finish())
    }

    pub(super) fn sync(path: &str) -> Self {
        Self(request(SYNC).text(node(path)).finish())
    }

    /// Its size without its length.
    pub(super) fn n_bytes(&self) -> usize {
        self.0.len() - LENGTH
    }

    pub(super) fn numbered(mut self, xid: i32) -> Vec<u8> {
        self.0[LENGTH..2 * LENGTH].copy_from_slice(&xid.to_be_bytes());
        self.0
    }
}

/// Requests a session, the one with this number and password if it is not 0.
pub(super) fn connect(last_zxid: i64, timeout_ms: i32, session: i64, password: &[u8]) -> Vec<u8> {
    let writer = Writer::new().int(0).long(last_zxid).int(timeout_ms).long(session);
    writer.buffer(password).flag(false).finish()
}

pub(super) fn ping() -> Vec<u8> {
    Writer::new().int(PING_XID).int(PING).finish()
}

/// Ends the session.
pub(super) fn close() -> Vec<u8> {
    Writer::new().int(0).int(CLOSE).finish()
}

pub(super) fn auth(scheme: &str, credentials: &[u8]) -> Vec<u8> {
    let writer = Writer::new().int(AUTH_XID).int(AUTH).int(0);
    writer.text(scheme).buffer(credentials).finish()
}

/// Sets watches again, of which the server reports those that have missed something.
pub(super) fn set_watches(
    since: i64,
    data: &[String],
    absent: &[String],
    children: &[String],
) -> Vec<u8> {
    let writer = Writer::new().int(SET_WATCHES_XID).int(SET_WATCHES).long(since);
    writer.texts(data).texts(absent).texts(children).finish()
}

/// A path as servers have it: an event of the root names it by a slash alone.
pub(super) fn node(path: &str) -> &str {
    if path.is_empty() { ROOT } else { path }
}

pub(super) fn granted(frame: &[u8]) -> Result<Granted, Malformed> {
    let mut reader = Reader::new(frame);
    let _protocol = reader.int()?;
    let (timeout_ms, session) = (reader.int()?, reader.long()?);
    let password = reader.buffer()?.to_vec();
    // Servers before 3.4 do not have it.
    let is_read_only = reader.flag().unwrap_or_default();
    Ok(Granted { session, timeout_ms, password, is_read_only })
}

/// Takes an answer apart.
pub(super) fn answer(frame: &[u8]) -> Result<(Header, &[u8]), Malformed> {
    let mut reader = Reader::new(frame);
    let header = Header { xid: reader.int()?, zxid: reader.long()?, error: reader.int()? };
    Ok((header, reader.rest()))
}

pub(super) fn event(body: &[u8]) -> Result<Event, Malformed> {
    let mut reader = Reader::new(body);
    let kind = match reader.int()? {
        1 => EventKind::Created,
        2 => EventKind::Deleted,
        3 => EventKind::DataChanged,
        4 => EventKind::ChildrenChanged,
        _ => EventKind::Other,
    };
    let _state = reader.int()?;
    let path = match reader.text()? {
        ROOT => String::new(),
        path => path.to_owned(),
    };
    Ok(Event { kind, path })
}

pub(super) fn stat(body: &[u8]) -> Result<Stat, Malformed> {
    read_stat(&mut Reader::new(body))
}

pub(super) fn data_and_stat(body: &[u8]) -> Result<(Vec<u8>, Stat), Malformed> {
    let mut reader = Reader::new(body);
    Ok((reader.buffer()?.to_vec(), read_stat(&mut reader)?))
}

pub(super) fn names_and_stat(body: &[u8]) -> Result<(Vec<String>, Stat), Malformed> {
    let mut reader = Reader::new(body);
    Ok((reader.texts()?, read_stat(&mut reader)?))
}

fn read_stat(reader: &mut Reader<'_>) -> Result<Stat, Malformed> {
    let (czxid, mzxid) = (reader.long()?, reader.long()?);
    let _times = (reader.long()?, reader.long()?);
    let version = reader.int()?;
    let _versions = (reader.int()?, reader.int()?);
    let owner = reader.long()?;
    let _sizes = (reader.int()?, reader.int()?);
    Ok(Stat { czxid, mzxid, version, owner, pzxid: reader.long()? })
}

fn request(op: i32) -> Writer {
    Writer::new().int(0).int(op)
}

/// The numbers of answers that no request of ours has.
pub(super) const EVENT_XID: i32 = -1;
pub(super) const PING_XID: i32 = -2;
pub(super) const AUTH_XID: i32 = -4;
pub(super) const SET_WATCHES_XID: i32 = -8;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const EXISTS: i32 = 3;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const SYNC: i32 = 9;
const PING: i32 = 11;
/// `getChildren2`, with the node's state.
const GET_CHILDREN: i32 = 12;
const CREATE_CONTAINER: i32 = 19;
const AUTH: i32 = 100;
const SET_WATCHES: i32 = 101;
const CLOSE: i32 = -11;

const ROOT: &str = "/";

/// Permissions.
const READ: i32 = 1;
const ALL: i32 = 31;
