//! A server in memory that has one node.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf, BufMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    select,
    time::timeout,
};
use tower_sd_core::{Instance, TaskGroup};

use super::*;
use crate::{GoKit, client::tests::client};

/// The server's state.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Sessions that it has replaced by others.
    pub(super) n_replaced: i64,
    /// The data of the node.
    pub(super) node: Option<Vec<u8>>,
    /// Creations that had an effect: the transaction of the latest one.
    pub(super) n_created: i64,
    pub(super) n_connections: u32,
    pub(super) fault: Fault,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Fault {
    #[default]
    None,
    /// Connections are closed in place of a session.
    Refuse,
    /// Connections get no session.
    Hang,
    /// Connections get a session of a server that accepts reads alone.
    ReadOnly,
    /// Requests are refused.
    Sasl,
    /// The answer to a creation is lost with the connection.
    Lose { has_effect: bool },
}

pub(super) struct Scripted {
    pub(super) model: Arc<Mutex<Model>>,
    pub(super) announcer: ZooKeeperAnnouncer,
    _tasks: TaskGroup,
}

impl Scripted {
    pub(super) async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("it is bound").port();
        let model = Arc::new(Mutex::new(Model { fault, ..Model::default() }));
        let (tasks, server) = (TaskGroup::new(), Arc::clone(&model));
        tasks.spawn(|stop| async move {
            select! {
                () = stop.requested() => {}
                () = serve(listener, server) => {}
            }
        });
        Self { model, announcer: announcer(&client(port)), _tasks: tasks }
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.model)
    }

    pub(super) async fn announce(&mut self, port: u16) -> Result<Renewal> {
        self.announcer.announce(&Announcement::new("s", instance(port))).await
    }

    /// Announces once more: an entry of another registration is a successor's.
    pub(super) async fn announce_again(&mut self, port: u16) -> Result<Renewal> {
        let mut announcement = Announcement::new("s", instance(port));
        announcement.takes_over = false;
        self.announcer.announce(&announcement).await
    }

    /// Reads the node once.
    pub(super) async fn waits_for_the_end(&mut self) {
        self.announcer.read_at = Instant::now();
        let lost = timeout(Duration::from_secs(1), self.announcer.lost());
        lost.await.expect_err("there is a node");
    }

    pub(super) async fn renew(&mut self) -> Result<Renewal> {
        self.announcer.renew(&Announcement::new("s", instance(1))).await
    }

    /// Repeats until there is a connection again.
    pub(super) async fn withdraw(&mut self) {
        while let Err(error) = self.announcer.withdraw().await {
            assert!(error.is_transient(), "{error:?}");
        }
    }
}

pub(super) fn announcer(client: &Client) -> ZooKeeperAnnouncer {
    let config = ZooKeeperConfig::new(["127.0.0.1:1"]).layout(GoKit);
    let registration = Registration::new("s", instance(1));
    ZooKeeperAnnouncer::new(client, &config, &registration).expect("a registration")
}

fn instance(port: u16) -> Instance {
    Instance::new("10.0.0.7", port).with_id("a")
}

fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection after the other: a client has one.
async fn serve(listener: TcpListener, model: Arc<Mutex<Model>>) {
    while let Ok((stream, _)) = listener.accept().await {
        lock(&model).n_connections += 1;
        let _closed = connection(stream, &model).await;
    }
}

async fn connection(mut stream: TcpStream, model: &Mutex<Model>) -> io::Result<()> {
    let _hello = frame(&mut stream).await?;
    let fault = lock(model).fault;
    match fault {
        Fault::Refuse => return Ok(()),
        Fault::Hang => std::future::pending().await,
        Fault::None | Fault::Lose { .. } | Fault::ReadOnly | Fault::Sasl => {}
    }
    let mut granted = Vec::new();
    granted.put_i32(0);
    granted.put_i32(60_000);
    granted.put_i64(SESSION + lock(model).n_replaced);
    granted.put_i32(0);
    granted.put_u8(u8::from(fault == Fault::ReadOnly));
    send(&mut stream, &granted).await?;
    loop {
        let request = frame(&mut stream).await?;
        let Some(answer) = answer(&request, &mut lock(model)) else { return Ok(()) };
        send(&mut stream, &answer).await?;
    }
}

/// Returns `None` if the answer is lost with the connection.
fn answer(mut request: &[u8], model: &mut Model) -> Option<Vec<u8>> {
    let (xid, op) = (request.get_i32(), request.get_i32());
    let fault = model.fault;
    let body = match op {
        _ if fault == Fault::Sasl => Err(SASL_REQUIRED),
        CREATE => {
            let _path = buffer(&mut request);
            let is_free = model.node.is_none();
            if is_free && fault != (Fault::Lose { has_effect: false }) {
                model.node = Some(buffer(&mut request));
                model.n_created += 1;
            }
            if fault != Fault::None {
                return None;
            }
            is_free.then(Vec::new).ok_or(NODE_EXISTS)
        }
        EXISTS => model.node.as_deref().map(|data| stat(model, data)).ok_or(NO_NODE),
        GET => model.node.as_deref().map(|data| data_and_stat(model, data)).ok_or(NO_NODE),
        SET => model
            .node
            .is_some()
            .then(|| {
                let _path = buffer(&mut request);
                let data = buffer(&mut request);
                let stat = stat(model, &data);
                model.node = Some(data);
                stat
            })
            .ok_or(NO_NODE),
        DELETE => model.node.take().map(|_| Vec::new()).ok_or(NO_NODE),
        _ => Ok(Vec::new()),
    };
    let mut answer = Vec::new();
    answer.put_i32(xid);
    answer.put_i64(model.n_created);
    answer.put_i32(body.as_ref().err().copied().unwrap_or_default());
    answer.extend(body.unwrap_or_default());
    Some(answer)
}

fn stat(model: &Model, data: &[u8]) -> Vec<u8> {
    data_and_stat(model, data).split_off(LENGTH + data.len())
}

fn data_and_stat(model: &Model, data: &[u8]) -> Vec<u8> {
    let czxid = model.n_created;
    let mut body = Vec::new();
    body.put_i32(i32::try_from(data.len()).expect("short"));
    body.extend(data);
    [czxid, czxid, 0, 0].into_iter().for_each(|number| body.put_i64(number));
    [0; 3].into_iter().for_each(|number| body.put_i32(number));
    body.put_i64(SESSION);
    [0; 2].into_iter().for_each(|number| body.put_i32(number));
    body.put_i64(czxid);
    body
}

fn buffer(request: &mut &[u8]) -> Vec<u8> {
    let length = usize::try_from(request.get_i32()).expect("a length");
    request.copy_to_bytes(length).to_vec()
}

async fn frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::try_from(stream.read_i32().await?).expect("a length");
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn send(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    stream.write_i32(i32::try_from(frame.len()).expect("short")).await?;
    stream.write_all(frame).await
}

const SESSION: i64 = 7;
/// The bytes of a length.
const LENGTH: usize = 4;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const EXISTS: i32 = 3;
const GET: i32 = 4;
const SET: i32 = 5;

const NO_NODE: i32 = -101;
const NODE_EXISTS: i32 = -110;
const SASL_REQUIRED: i32 = -124;
