//! Servers whose latency and failures a test decides.

use std::{collections::BTreeMap, fmt, hint::black_box, net::Ipv4Addr, time::Duration};

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tower::{
    Service, ServiceExt,
    balance::p2c,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma},
    service_fn,
    util::BoxCloneSyncService,
};
use tower_sd::backend::chain;
use tower_sd_balance::{BoxError, Factory, Instance};
use tower_sd_http::HttpFactory;
use tower_sd_testkit::loopback::own_address;

use crate::{Sent, get};

/// A client whose answers are read to their ends.
pub(crate) type Caller = BoxCloneSyncService<Request<Sent>, (StatusCode, Bytes), BoxError>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Manner {
    Answers(Duration),
    /// After so many iterations of a loop, during which it does nothing else.
    Burns(u64),
    /// With 500, immediately.
    Fails,
    /// The connection ends in the place of the answer.
    Dies,
    /// Listener and connections are gone.
    Dead,
}

/// Of one service; their numbers are the bodies of their answers.
pub(crate) struct Fleet {
    servers: Vec<(Instance, watch::Sender<Manner>)>,
    _tasks: JoinSet<()>,
}

impl Fleet {
    pub(crate) async fn start(n: usize, manner: Manner) -> Self {
        let (mut servers, mut tasks) = (Vec::new(), JoinSet::new());
        // Other tests do not get the ports of those that die.
        let address = own_address();
        for number in 0..n {
            servers.push(start(number, address, manner, &mut tasks).await);
        }
        Self { servers, _tasks: tasks }
    }

    pub(crate) fn set(&self, number: usize, manner: Manner) {
        self.servers[number].1.send_replace(manner);
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = Instance> {
        self.servers.iter().map(|(instance, _)| instance.clone())
    }
}

pub(crate) async fn start(
    number: usize,
    address: Ipv4Addr,
    manner: Manner,
    tasks: &mut JoinSet<()>,
) -> (Instance, watch::Sender<Manner>) {
    let listener = TcpListener::bind((address, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (sender, receiver) = watch::channel(manner);
    tasks.spawn(serve(listener, number, receiver));
    (Instance::new(address.to_string(), port), sender)
}

async fn serve(listener: TcpListener, number: usize, mut manner: watch::Receiver<Manner>) {
    // They end with this task.
    let mut peers = JoinSet::new();
    let manners = manner.clone();
    loop {
        tokio::select! {
            _dead = manner.wait_for(|manner| *manner == Manner::Dead) => return,
            accepted = listener.accept() => {
                let (stream, _) = accepted.expect("accepts");
                peers.spawn(answer(stream, number, manners.clone()));
            }
        }
    }
}

async fn answer(
    mut stream: TcpStream,
    number: usize,
    manner: watch::Receiver<Manner>,
) -> Option<()> {
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        head.clear();
        let manner = *manner.borrow();
        let status = match manner {
            Manner::Answers(time) => {
                sleep(time).await;
                StatusCode::OK
            }
            Manner::Burns(n) => {
                burn(n);
                StatusCode::OK
            }
            Manner::Fails => StatusCode::INTERNAL_SERVER_ERROR,
            Manner::Dies | Manner::Dead => return None,
        };
        let body = number.to_string();
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

pub(crate) fn caller<S, B>(client: S) -> Caller
where
    S: Service<Request<Sent>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service_fn(move |request| {
        let client = client.clone();
        async move {
            let response = client.oneshot(request).await.map_err(Into::into)?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(Into::into)?;
            Ok((status, body.to_bytes()))
        }
    }))
}

pub(crate) fn burn(n: u64) {
    (0..n).for_each(|i| _ = black_box(i));
}

/// tower's balancer over the same endpoints, as tonic has it.
pub(crate) async fn tower_peak_ewma(instances: impl IntoIterator<Item = Instance>) -> Caller {
    let (factory, mut endpoints) = (HttpFactory::<Sent>::new(), Vec::new());
    for instance in instances {
        let endpoint = factory.make(instance).await.expect("an address");
        let measured = CompleteOnResponse::default();
        endpoints.push(PeakEwma::new(endpoint, Duration::from_millis(30), 10e9, measured));
    }
    caller(Buffer::new(p2c::Balance::new(ServiceList::new(endpoints)), 1024))
}

/// What has become of a load.
#[derive(Default)]
pub(crate) struct Load {
    /// The answers of each server.
    pub(crate) answers: BTreeMap<usize, usize>,
    /// Those without an answer, and those of failure.
    pub(crate) n_failed: usize,
    /// The number of each kind, and the last of it.
    errors: BTreeMap<String, (usize, String)>,
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_failed, answers, errors } = self;
        write!(f, "{n_failed} failed, {answers:?}, {errors:#?}")
    }
}

impl Load {
    pub(crate) fn of(&self, number: usize) -> usize {
        self.answers.get(&number).copied().unwrap_or_default()
    }

    fn add(&mut self, answer: Result<(StatusCode, Bytes), BoxError>) {
        match answer {
            Ok((status, body)) => {
                let number = str::from_utf8(&body).ok().and_then(|body| body.parse().ok());
                *self.answers.entry(number.expect("a number")).or_default() += 1;
                self.n_failed += usize::from(!status.is_success());
            }
            Err(error) => {
                self.n_failed += 1;
                let last = chain(&*error).to_string();
                let kind = last.replace(|c: char| c.is_ascii_digit(), "");
                let (n, _) = self.errors.remove(&kind).unwrap_or_default();
                self.errors.insert(kind, (n + 1, last));
            }
        }
    }
}

/// Sends so many requests, eight at a time: a busy machine takes longer, and fails none for that.
pub(crate) async fn load(caller: &Caller, n: usize) -> Load {
    let mut load = Load::default();
    let mut answers = stream::iter(0..n).map(|_| caller.clone().oneshot(get())).buffer_unordered(8);
    while let Some(answer) = answers.next().await {
        load.add(answer);
    }
    load
}

/// Sends so many requests, one every `period` or later, 64 at a time at most: a busy machine takes
/// longer, and fails none for that.
pub(crate) async fn load_every(caller: &Caller, n: usize, period: Duration) -> Load {
    let (mut load, mut running, mut due) = (Load::default(), JoinSet::new(), interval(period));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..n {
        due.tick().await;
        if running.len() == 64 {
            load.add(running.join_next().await.expect("64").expect("no panic"));
        }
        running.spawn(caller.clone().oneshot(get()));
    }
    running.join_all().await.into_iter().for_each(|answer| load.add(answer));
    load
}

/// Sends a request at each of these times; returns what has become of them, and how long those
/// that succeeded took, in order.
pub(crate) async fn load_at(
    caller: &Caller,
    times: impl Iterator<Item = Duration>,
) -> (Load, Vec<Duration>) {
    let (begun, mut running) = (Instant::now(), JoinSet::new());
    for at in times {
        sleep_until(begun + at).await;
        let caller = caller.clone();
        running.spawn(async move {
            let begun = Instant::now();
            (caller.oneshot(get()).await, begun.elapsed())
        });
    }
    let (mut load, mut took) = (Load::default(), Vec::new());
    for (answer, time) in running.join_all().await {
        took.extend(answer.as_ref().is_ok_and(|(status, _)| status.is_success()).then_some(time));
        load.add(answer);
    }
    took.sort_unstable();
    (load, took)
}
