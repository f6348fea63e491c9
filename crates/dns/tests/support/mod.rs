//! A name server that responds as a test scripts it.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{self, SOA, SRV},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    select,
    time::{Instant, sleep, timeout},
};
use tower_sd_core::TaskGroup;
use tower_sd_testkit::loopback::free_ports;

/// A scripted name server on loopback, over UDP and TCP on the same port.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: TaskGroup,
}

struct Shared {
    script: Mutex<Script>,
    log: Mutex<Vec<Asked>>,
    /// Counts up whenever the connections of before are dropped.
    epoch: AtomicUsize,
}

type Script = Box<dyn FnMut(&Asked) -> Reply + Send>;

/// One question.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) kind: RecordType,
    pub(crate) tcp: bool,
    /// The size of a response over UDP that the client accepts; none without EDNS.
    pub(crate) room: Option<u16>,
    pub(crate) at: Instant,
}

/// The answer. Made by functions, changed by methods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    code: Option<ResponseCode>,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
    authoritative: bool,
    truncated: bool,
    question: Option<(Name, RecordType)>,
    first_with_another_id: Option<Box<Self>>,
    silent: bool,
}

impl NameServer {
    /// Starts one that answers by `script`.
    pub(crate) async fn start(script: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        let [port] = free_ports([127, 0, 0, 1].into()).expect("a free port");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let udp = UdpSocket::bind(address).await.expect("the port is free");
        let tcp = TcpListener::bind(address).await.expect("the port is free");
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(script)),
            log: Mutex::default(),
            epoch: AtomicUsize::new(0),
        });
        let (tasks, serving, of_tasks) = (TaskGroup::new(), Arc::clone(&shared), TaskGroup::new());
        tasks.spawn(async move |stop| {
            select! {
                () = stop.requested() => {}
                () = serve_udp(udp, &serving) => {}
                () = serve_tcp(tcp, &serving, &of_tasks) => {}
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    /// Answers by another script from now on.
    pub(crate) fn says(&self, script: impl FnMut(&Asked) -> Reply + Send + 'static) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(script);
    }

    /// From now on the connections of before lead nowhere, as behind a firewall that has dropped
    /// them: they stay open, and nothing comes back. New ones are as good as ever.
    pub(crate) fn forgets_its_connections(&self) {
        self.shared.epoch.fetch_add(1, SeqCst);
    }

    /// The questions so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has got `n` more questions.
    pub(crate) async fn is_asked_again(&self, n: usize) {
        let before = self.asked().len();
        let wait = async {
            while self.asked().len() < before + n {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(10), wait).await.expect("another question");
    }
}

impl fmt::Debug for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Shared {
    /// The packets to send, in order.
    fn replies(&self, bytes: &[u8], tcp: bool) -> Vec<Vec<u8>> {
        let request = Message::from_vec(bytes).expect("hickory writes well");
        let question = request.queries[0].clone();
        let asked = Asked {
            name: question.name().to_ascii(),
            kind: question.query_type(),
            tcp,
            room: request.edns.as_ref().map(Edns::max_payload),
            at: Instant::now(),
        };
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        let reply = (self.script.lock().unwrap_or_else(PoisonError::into_inner))(&asked);
        if reply.silent {
            return Vec::new();
        }
        let mut packets = Vec::new();
        if let Some(forged) = &reply.first_with_another_id {
            packets.push(forged.packet(request.id.wrapping_add(1), &question));
        }
        packets.push(reply.packet(request.id, &question));
        packets
    }
}

async fn serve_udp(socket: UdpSocket, shared: &Shared) {
    let mut buffer = vec![0; 4096];
    while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
        for packet in shared.replies(&buffer[..n], false) {
            socket.send_to(&packet, from).await.expect("loopback takes it");
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: &Arc<Shared>, tasks: &TaskGroup) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(shared);
        tasks.spawn(async move |stop| {
            select! {
                () = stop.requested() => {}
                _ended = serve_connection(stream, &shared) => {}
            }
        });
    }
}

async fn serve_connection(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let epoch = shared.epoch.load(SeqCst);
    loop {
        let n = stream.read_u16().await?;
        let mut request = vec![0; n.into()];
        stream.read_exact(&mut request).await?;
        if shared.epoch.load(SeqCst) != epoch {
            continue;
        }
        for packet in shared.replies(&request, true) {
            stream.write_u16(u16::try_from(packet.len()).expect("it fits")).await?;
            stream.write_all(&packet).await?;
        }
    }
}

impl Reply {
    pub(crate) fn records(answers: impl IntoIterator<Item = Record>) -> Self {
        Self { answers: answers.into_iter().collect(), ..Self::default() }
    }

    pub(crate) fn code(code: ResponseCode) -> Self {
        Self { code: Some(code), ..Self::default() }
    }

    /// There is nothing of this type, with a SOA that bounds how long.
    pub(crate) fn nothing(ttl: u32) -> Self {
        Self::default().authority(soa(3600, ttl))
    }

    pub(crate) fn silence() -> Self {
        Self { silent: true, ..Self::default() }
    }

    pub(crate) fn with_code(self, code: ResponseCode) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(crate) fn authority(mut self, record: Record) -> Self {
        self.authorities.push(record);
        self
    }

    pub(crate) fn additional(mut self, record: Record) -> Self {
        self.additionals.push(record);
        self
    }

    pub(crate) fn truncated(self) -> Self {
        Self { truncated: true, ..self }
    }

    /// To another question.
    pub(crate) fn with_question(self, question: &str, kind: RecordType) -> Self {
        Self { question: Some((name(question), kind)), ..self }
    }

    /// From what the server has itself.
    pub(crate) fn authoritative(self) -> Self {
        Self { authoritative: true, ..self }
    }

    /// Sends `forged` first, with another id.
    pub(crate) fn after_a_forged(self, forged: Self) -> Self {
        Self { first_with_another_id: Some(Box::new(forged)), ..self }
    }

    fn packet(&self, id: u16, question: &Query) -> Vec<u8> {
        let mut message = Message::response(id, OpCode::Query);
        message.metadata.response_code = self.code.unwrap_or(ResponseCode::NoError);
        message.metadata.truncation = self.truncated;
        message.metadata.authoritative = self.authoritative;
        let mut question = question.clone();
        if let Some((name, kind)) = &self.question {
            question = Query::query(name.clone(), *kind);
        }
        message.add_query(question);
        message.add_answers(self.answers.iter().cloned());
        message.add_authorities(self.authorities.iter().cloned());
        message.add_additionals(self.additionals.iter().cloned());
        message.to_vec().expect("it can be encoded")
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

pub(crate) fn srv(owner: &str, ttl: u32, service: (u16, u16, u16, &str)) -> Record {
    let (priority, weight, port, target) = service;
    let srv = SRV::new(priority, weight, port, name(target));
    Record::from_rdata(name(owner), ttl, RData::SRV(srv))
}

pub(crate) fn a(owner: &str, ttl: u32, ip: [u8; 4]) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(rdata::A(ip.into())))
}

pub(crate) fn aaaa(owner: &str, ttl: u32, last: u16) -> Record {
    let ip = [0xfd00, 0, 0, 0, 0, 0, 0, last];
    Record::from_rdata(name(owner), ttl, RData::AAAA(rdata::AAAA(ip.into())))
}

pub(crate) fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(rdata::CNAME(name(target))))
}

/// One with this TTL of its own and this MINIMUM.
pub(crate) fn soa(ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(name("ns.lab.test."), name("me.lab.test."), 1, 60, 60, 60, minimum);
    Record::from_rdata(name("lab.test."), ttl, RData::SOA(soa))
}
