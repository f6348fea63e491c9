//! What an operator or another program does to the nodes.

#[path = "../../../src/client/jute.rs"]
mod jute;
#[path = "../../../src/client/wire.rs"]
mod wire;

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) use self::wire::{Access, CreateMode, Stat};
use self::{jute::Writer, wire::Frame};

/// A session of its own, on one connection.
pub(crate) struct Operator {
    stream: TcpStream,
    session: i64,
    /// The latest transaction that it has seen.
    zxid: i64,
    /// The paths of watches that have reported something.
    reported: Vec<String>,
}

impl Operator {
    pub(crate) async fn connect(server: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(server).await.expect("the server runs");
        let hello = wire::connect(0, 60_000, 0, &[]);
        stream.write_all(&hello).await.expect("it accepts a session");
        let mut operator = Self::of(stream);
        let granted = wire::granted(&operator.frame().await).expect("an answer");
        assert!(granted.session != 0 && granted.timeout_ms > 0 && !granted.password.is_empty());
        assert!(!granted.is_read_only);
        operator.session = granted.session;
        operator
    }

    fn of(stream: TcpStream) -> Self {
        Self { stream, session: 0, zxid: 0, reported: Vec::new() }
    }

    /// Sets a persistent recursive watch; since ZooKeeper 3.6.
    pub(crate) async fn watch_below(&mut self, path: &str) {
        let request = Writer::new().int(1).int(ADD_WATCH).text(path).int(RECURSIVE);
        self.exchange(&request.finish()).await.expect("it watches");
    }

    /// Breaks its connection.
    pub(crate) async fn disconnect(&mut self) {
        self.stream.shutdown().await.expect("it is connected");
    }

    /// Resumes its session, and sets that watch again.
    pub(crate) async fn resume(&mut self, server: SocketAddr, path: &str) {
        self.stream = TcpStream::connect(server).await.expect("the server runs");
        let hello = wire::connect(self.zxid, 60_000, self.session, &password(self.session));
        self.stream.write_all(&hello).await.expect("it accepts a session");
        let granted = wire::granted(&self.frame().await).expect("an answer");
        assert_eq!(granted.session, self.session, "it is alive");
        let (none, below) = (Vec::new(), vec![path.to_owned()]);
        let request = Writer::new().int(1).int(SET_WATCHES_2).long(self.zxid);
        let request = request.texts(&none).texts(&none).texts(&none).texts(&none).texts(&below);
        self.exchange(&request.finish()).await.expect("it watches");
    }

    /// The paths that watches have reported so far.
    pub(crate) async fn reported(&mut self) -> Vec<String> {
        self.call(Frame::sync("/")).await.expect("it answers");
        std::mem::take(&mut self.reported)
    }

    /// Ends the session of another client.
    pub(crate) async fn kill_session(server: SocketAddr, session: i64) {
        let mut stream = TcpStream::connect(server).await.expect("the server runs");
        // Both in one piece: the client, whose connection ends, comes back within milliseconds.
        let requests = [wire::connect(0, 60_000, session, &password(session)), wire::close()];
        stream.write_all(&requests.concat()).await.expect("it accepts a session");
        let mut operator = Self::of(stream);
        let granted = wire::granted(&operator.frame().await).expect("an answer");
        assert_eq!(granted.session, session, "it is alive, and this is its password");
        // The answer, and the end of the connection.
        drop(operator.stream.read_to_end(&mut Vec::new()).await);
    }

    /// Creates a node, and those above it.
    pub(crate) async fn create(&mut self, path: &str, data: &[u8], mode: CreateMode) {
        for (end, _) in path.match_indices('/').skip(1) {
            let parent = Frame::create(&path[..end], &[], CreateMode::Persistent, Access::Open);
            self.call(parent).await.ok();
        }
        self.create_in(path, data, mode).await;
    }

    /// Creates a node whose parent exists.
    pub(crate) async fn create_in(&mut self, path: &str, data: &[u8], mode: CreateMode) {
        let node = Frame::create(path, data, mode, Access::Open);
        self.call(node).await.expect("it creates");
    }

    pub(crate) async fn delete(&mut self, path: &str) {
        self.call(Frame::delete(path, -1)).await.expect("it deletes");
    }

    pub(crate) async fn set(&mut self, path: &str, data: &[u8]) {
        self.call(Frame::set(path, data, -1)).await.expect("it writes");
    }

    pub(crate) async fn get(&mut self, path: &str) -> Option<(Vec<u8>, Stat)> {
        self.call(Frame::sync(path)).await.ok();
        let answer = self.call(Frame::get(path, false)).await.ok()?;
        Some(wire::data_and_stat(&answer).expect("data and a state"))
    }

    /// The names of the children, sorted.
    pub(crate) async fn children(&mut self, path: &str) -> Vec<String> {
        self.call(Frame::sync(path)).await.ok();
        let Ok(answer) = self.call(Frame::children(path, false)).await else { return Vec::new() };
        let (mut names, _stat) = wire::names_and_stat(&answer).expect("names and a state");
        names.sort();
        names
    }

    /// Sets the permissions that clients on this machine have.
    pub(crate) async fn permit(&mut self, path: &str, permissions: i32) {
        let request = Writer::new().int(1).int(SET_ACL).text(path).int(1);
        let request = request.int(permissions).text("ip").text("127.0.0.1").int(-1);
        self.exchange(&request.finish()).await.expect("it is permitted");
    }

    /// `Err`: the code of ZooKeeper.
    async fn call(&mut self, frame: Frame) -> Result<Vec<u8>, i32> {
        self.exchange(&frame.numbered(1)).await
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, i32> {
        self.stream.write_all(request).await.expect("the server runs");
        loop {
            let frame = self.frame().await;
            let (header, body) = wire::answer(&frame).expect("an answer");
            if header.xid == wire::EVENT_XID {
                self.reported.push(wire::event(body).expect("an event").path);
            }
            if header.xid == 1 {
                self.zxid = header.zxid;
                return if header.error == 0 { Ok(body.to_vec()) } else { Err(header.error) };
            }
        }
    }

    async fn frame(&mut self) -> Vec<u8> {
        let length = self.stream.read_u32().await.expect("the server answers");
        let mut frame = vec![0; usize::try_from(length).expect("a length")];
        self.stream.read_exact(&mut frame).await.expect("the server answers");
        frame
    }
}

/// The password that servers give to a session: Java's `new Random(session ^ SECRET)`.
fn password(session: i64) -> Vec<u8> {
    let mut state = (session ^ SECRET ^ MULTIPLIER) & MASK;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(0xb) & MASK;
        // The upper 32 of 48 bits, from the lowest byte on.
        (state >> 16).to_le_bytes()
    });
    words.take(4).flat_map(|word| word.into_iter().take(4)).collect()
}

/// `ZooKeeperServer.superSecret`.
const SECRET: i64 = 0xb341_5c00;
/// Those of `java.util.Random`.
const MULTIPLIER: i64 = 0x5_deec_e66d;
const MASK: i64 = (1 << 48) - 1;

/// All permissions, and all but reading.
pub(crate) const ALL: i32 = 31;
pub(crate) const UNREADABLE: i32 = 30;
const SET_ACL: i32 = 7;
const SET_WATCHES_2: i32 = 105;
const ADD_WATCH: i32 = 106;
/// The mode of a persistent recursive watch.
const RECURSIVE: i32 = 1;
