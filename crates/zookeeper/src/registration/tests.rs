//! Creations whose answers are lost, at a server in memory that has one node.

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
};
use tower_sd_core::{Instance, TaskGroup};

use super::*;
use crate::{
    GoKit,
    client::{CreateMode, Update, tests::client},
};

/// The server's state.
#[derive(Debug, Default)]
struct Model {
    /// Sessions that it has replaced by others.
    n_replaced: i64,
    /// The data of the node.
    node: Option<Vec<u8>>,
    n_created: u32,
    n_connections: u32,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Fault {
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

struct Scripted {
    model: Arc<Mutex<Model>>,
    announcer: ZooKeeperAnnouncer,
    _tasks: TaskGroup,
}

impl Scripted {
    async fn start(fault: Fault) -> Self {
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

    fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.model)
    }

    async fn announce(&mut self, port: u16) -> Result<Renewal> {
        self.announcer.announce(&Announcement::new("s", instance(port))).await
    }

    /// Repeats until there is a connection again.
    async fn withdraw(&mut self) {
        while let Err(error) = self.announcer.withdraw().await {
            assert!(error.is_transient(), "{error:?}");
        }
    }
}

fn announcer(client: &Client) -> ZooKeeperAnnouncer {
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
        CREATE if model.node.is_some() => Err(NODE_EXISTS),
        CREATE => {
            let _path = buffer(&mut request);
            model.n_created += 1;
            if fault != (Fault::Lose { has_effect: false }) {
                model.node = Some(buffer(&mut request));
            }
            if fault != Fault::None {
                return None;
            }
            Ok(Vec::new())
        }
        GET => model.node.as_deref().map(data_and_stat).ok_or(NO_NODE),
        SET => model
            .node
            .is_some()
            .then(|| {
                let _path = buffer(&mut request);
                let data = buffer(&mut request);
                let stat = data_and_stat(&data).split_off(LENGTH + data.len());
                model.node = Some(data);
                stat
            })
            .ok_or(NO_NODE),
        DELETE => model.node.take().map(|_| Vec::new()).ok_or(NO_NODE),
        _ => Ok(Vec::new()),
    };
    let mut answer = Vec::new();
    answer.put_i32(xid);
    answer.put_i64(CZXID);
    answer.put_i32(body.as_ref().err().copied().unwrap_or_default());
    answer.extend(body.unwrap_or_default());
    Some(answer)
}

fn data_and_stat(data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i32(i32::try_from(data.len()).expect("short"));
    body.extend(data);
    [CZXID, CZXID, 0, 0].into_iter().for_each(|number| body.put_i64(number));
    [0; 3].into_iter().for_each(|number| body.put_i32(number));
    body.put_i64(SESSION);
    [0; 2].into_iter().for_each(|number| body.put_i32(number));
    body.put_i64(CZXID);
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

/// Nothing is learned about a creation from a later one that was not sent.
#[tokio::test]
async fn creation_without_an_answer_is_withdrawn_after_an_outage() {
    let mut server = Scripted::start(Fault::Lose { has_effect: true }).await;
    server.announce(1).await.expect_err("the answer is lost");
    server.model().fault = Fault::Refuse;
    server.announce(1).await.expect_err("no connection");
    server.announcer.withdraw().await.expect_err("no connection");
    assert!(server.model().node.is_some());
    server.model().fault = Fault::None;
    server.withdraw().await;
    assert_eq!(server.model().node, None);
}

#[tokio::test]
async fn second_creation_with_other_data_is_withdrawn() {
    let mut server = Scripted::start(Fault::Lose { has_effect: false }).await;
    server.announce(1).await.expect_err("the answer is lost");
    server.model().fault = Fault::Lose { has_effect: true };
    while server.model().node.is_none() {
        server.announce(2).await.expect_err("the answer is lost");
    }
    server.model().fault = Fault::None;
    server.withdraw().await;
    assert_eq!(server.model().node, None);
}

#[tokio::test]
async fn creation_in_doubt_is_updated_to_other_data() {
    let mut server = Scripted::start(Fault::Lose { has_effect: true }).await;
    server.announce(1).await.expect_err("the answer is lost");
    server.model().fault = Fault::None;
    let written = loop {
        match server.announce(2).await {
            Ok(written) => break written,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    };
    assert!(matches!(written, Renewal::Renewed(_)), "{written:?}");
    assert_eq!(server.model().node.as_deref(), Some(&b"10.0.0.7:2"[..]));
}

/// The layout has no incarnation: the node of another handle of the session has the same data.
#[tokio::test]
async fn node_of_the_same_data_is_no_creation_of_ours() {
    let mut server = Scripted::start(Fault::None).await;
    server.model().node = Some(b"10.0.0.7:1".to_vec());
    server.announce(1).await.expect("it takes the place");
    assert_eq!(server.model().n_created, 1);
}

/// Whether the predecessor's creation had an effect is not known when its handle is dropped.
#[tokio::test]
async fn node_of_a_successor_is_not_left_behind_by_its_predecessor() {
    let mut server = Scripted::start(Fault::Lose { has_effect: false }).await;
    let client = server.announcer.client.clone();
    server.announce(1).await.expect_err("the answer is lost");
    server.model().fault = Fault::Refuse;
    server.announcer = announcer(&client);
    server.announce(1).await.expect_err("no connection");
    server.model().fault = Fault::None;
    while let Err(error) = server.announce(1).await {
        assert!(error.is_transient(), "{error:?}");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(server.model().node.is_some());
}

/// The session goes on for others.
#[tokio::test]
async fn node_is_withdrawn_when_its_successor_fails() {
    let mut server = Scripted::start(Fault::Lose { has_effect: true }).await;
    let client = server.announcer.client.clone();
    let _session = client.session();
    server.announce(1).await.expect_err("the answer is lost");
    server.model().fault = Fault::Refuse;
    server.announcer = announcer(&client);
    server.announce(1).await.expect_err("no connection");
    server.announcer = announcer(&client);
    server.model().fault = Fault::None;
    let removed = async {
        while server.model().node.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), removed).await.expect("it is removed");
}

/// The servers keep a session whose client has vanished, and its node.
#[tokio::test]
async fn node_is_withdrawn_when_the_runtime_of_its_session_has_ended() {
    let mut server = Scripted::start(Fault::None).await;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let client = server.announcer.client.clone();
    let first = runtime.spawn(async move { client.session() }).await.expect("a session");
    server.announce(1).await.expect("announced");
    runtime.shutdown_background();
    first.task_ended().await;
    server.withdraw().await;
    assert_eq!(server.model().node, None);
}

/// It needs no server.
#[tokio::test]
async fn data_above_the_limit_are_refused_without_a_connection() {
    let mut server = Scripted::start(Fault::Hang).await;
    let large = Instance::new("h".repeat(2 << 20), 1).with_id("a");
    let error = server.announcer.announce(&Announcement::new("s", large)).await;
    let error = error.expect_err("too large");
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Config, false), "{error:?}");
    assert!(error.is_without_effect(), "{error:?}");
}

/// Hundreds of processes may start while the servers are away.
#[tokio::test(start_paused = true)]
async fn connections_without_a_session_become_rare() {
    let server = Scripted::start(Fault::Refuse).await;
    let _session = server.announcer.client.session();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = server.model().n_connections;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let n = server.model().n_connections - before;
    assert!((10..=60).contains(&n), "{n} connections in 5 min");
}

#[tokio::test]
async fn server_of_reads_alone_and_one_with_sasl_are_refused_by_name() {
    for (fault, name) in [(Fault::ReadOnly, "read-only"), (Fault::Sasl, "SASL")] {
        let mut server = Scripted::start(fault).await;
        let error = server.announce(1).await.expect_err("refused");
        assert!(error.chain().to_string().contains(name), "{}", error.chain());
        assert_eq!(server.model().node, None);
    }
}

/// ClickHouse's Keeper has no session of a former connection, and reports no expiry.
#[tokio::test]
async fn session_in_place_of_another_ends_that_and_its_watches() {
    let mut server = Scripted::start(Fault::None).await;
    server.announce(1).await.expect("announced");
    let session = server.announcer.session();
    let watch = session.watch("/services/s");
    session.get_watched("/services/s/a").await.expect("it answers");
    {
        let mut model = server.model();
        (model.n_replaced, model.node) = (1, None);
        model.fault = Fault::Lose { has_effect: false };
    }
    let created = session.create("/services/t", &[], CreateMode::Persistent, Access::Open).await;
    created.expect_err("the connection breaks");
    server.model().fault = Fault::None;
    let ended = async { while !matches!(watch.next().await, Update::Ended) {} };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the watch ends");
    assert_eq!(server.announcer.lost().await, LossReason::SessionEnded);
    server.announce(1).await.expect("announced again");
    assert!(server.model().node.is_some());
}

/// A persistent node has the owner 0, as a session before the first one.
#[tokio::test]
async fn node_without_an_owner_is_not_ours_before_the_first_session() {
    let mut server = Scripted::start(Fault::Hang).await;
    server.announce(1).await.expect_err("no session");
    let announcer = &mut server.announcer;
    assert!(announcer.in_doubt.is_some());
    let session = announcer.session();
    assert!(announcer.is_ours(&session).is_none());
}

const SESSION: i64 = 7;
const CZXID: i64 = 1;
/// The bytes of a length.
const LENGTH: usize = 4;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const GET: i32 = 4;
const SET: i32 = 5;

const NO_NODE: i32 = -101;
const NODE_EXISTS: i32 = -110;
const SASL_REQUIRED: i32 = -124;
