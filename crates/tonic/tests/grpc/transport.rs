//! Schemes, pings and header limits of the connection below.

use std::{io, net::SocketAddr, time::Duration};

use http::Request as HttpRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
    time::{Instant, timeout},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt};
use tower_sd_balance::{
    BalanceLayer, Endpointer, Factory, FixedInstancer, Instance, RoundRobin, async_trait,
};
use tower_sd_http::{Connector, HttpFactory, Io};
use tower_sd_net::Target;
use tower_sd_tonic::GrpcFactory;

use crate::{Balanced, echo::echo_client::EchoClient, message, server::Server};

fn client(factory: GrpcFactory, instance: Instance) -> EchoClient<Balanced> {
    let endpointer = Endpointer::new(&FixedInstancer::new([instance]), factory);
    EchoClient::new(BalanceLayer::new(RoundRobin::new()).layer(endpointer))
}

#[tokio::test]
async fn schemes_of_grpc_and_http_are_taken_in_any_case() {
    let server = Server::start();
    for scheme in ["grpc", "GRPC", "http", "HTTP"] {
        let instance = server.instance().with_scheme(scheme);
        let answer = client(GrpcFactory::new(), instance).one(message("hello")).await;
        assert_eq!(answer.expect(scheme).into_inner().text, "hello");
    }
    for scheme in ["grpcs", "https", "ftp"] {
        let instance = server.instance().with_scheme(scheme);
        let refused = GrpcFactory::new().make(instance).await.map(drop).expect_err(scheme);
        assert!(refused.to_string().contains("uses http"), "{refused}");
    }
}

/// A network without sockets.
#[derive(Debug)]
struct Memory(mpsc::Sender<DuplexStream>);

#[async_trait]
impl Connector for Memory {
    async fn resolve(&self, _host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))])
    }

    async fn connect(&self, _target: &Target, _address: SocketAddr) -> io::Result<Io> {
        let (ours, theirs) = tokio::io::duplex(4096);
        self.0.send(theirs).await.map_err(io::Error::other)?;
        Ok(Io::boxed(ours))
    }
}

/// The times of the first two pings that a silent call causes.
async fn pings(over: HttpFactory<Body>) -> Vec<Duration> {
    let (accept, mut accepted) = mpsc::channel(1);
    let factory = GrpcFactory::over(over.connector(Memory(accept)));
    let mut endpoint = factory.make(Instance::new("silent", 1)).await.expect("a name");
    let serve = async {
        let stream = accepted.recv().await.expect("dialled");
        timeout(Duration::from_secs(1000), count(stream)).await.unwrap_or_default()
    };
    let call = async {
        let request = HttpRequest::post("http://silent/echo.Echo/Repeat").body(Body::empty());
        let ready = ServiceExt::<HttpRequest<Body>>::ready(&mut endpoint).await.expect("connects");
        ready.call(request.expect("valid")).await.map(drop)
    };
    tokio::select! {
        pings = serve => pings,
        ended = call => panic!("the call ended: {ended:?}"),
    }
}

/// Answers the preface, and returns the time of the first pings.
async fn count(mut stream: DuplexStream) -> Vec<Duration> {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    let started = Instant::now();
    let mut pings = Vec::new();
    stream.read_exact(&mut [0; 24]).await.expect("a preface");
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.expect("open");
    while pings.len() < 2 {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("short")];
        stream.read_exact(&mut payload).await.expect("a frame");
        let is_ack = head[4] & 1 == 1;
        match head[3] {
            SETTINGS if !is_ack => {
                stream.write_all(&[0, 0, 0, SETTINGS, 1, 0, 0, 0, 0]).await.expect("open");
            }
            PING if !is_ack => {
                pings.push(started.elapsed());
                stream.write_all(&[0, 0, 8, PING, 1, 0, 0, 0, 0]).await.expect("open");
                stream.write_all(&payload).await.expect("open");
            }
            _ => {}
        }
    }
    pings
}

/// What servers of gRPC's C core allow; two more frequent ones end the connection.
#[tokio::test(start_paused = true)]
async fn silent_calls_are_pinged_every_5_minutes_by_default() {
    let [first, second] = pings(HttpFactory::new()).await[..] else {
        panic!("two pings");
    };
    assert!(first >= Duration::from_secs(300), "{first:?}");
    assert!(second - first >= Duration::from_secs(300), "{second:?} after {first:?}");
    let told = HttpFactory::new().keep_alive_interval(Duration::from_secs(10));
    let [first, _] = pings(told).await[..] else {
        panic!("two pings");
    };
    assert!(first < Duration::from_secs(11), "{first:?}");
}

fn large() -> [Status; 3] {
    let mut with_metadata = Status::data_loss("short");
    let value = "x".repeat(20_000).parse().expect("ASCII");
    with_metadata.metadata_mut().insert("large", value);
    [
        Status::data_loss("x".repeat(20_000)),
        Status::with_details(Code::DataLoss, "short", vec![b'x'; 20_000].into()),
        with_metadata,
    ]
}

#[tokio::test]
async fn statuses_of_20_000_bytes_arrive_whole_over_calls_and_streams() {
    for status in large() {
        let server = Server::start_failing(status.clone());
        let mut client = client(GrpcFactory::new(), server.instance());
        let unary = client.one(message("hello")).await.expect_err("fails");
        let mut stream = client.repeat(message("fail as set")).await.expect("begins").into_inner();
        let streamed = loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("no status"),
                Err(status) => break status,
            }
        };
        for seen in [unary, streamed] {
            assert_eq!((seen.code(), seen.message()), (status.code(), status.message()));
            assert_eq!(seen.details(), status.details());
            let large = |status: &Status| status.metadata().get("large").cloned();
            assert_eq!(large(&seen), large(&status));
        }
    }
}

#[tokio::test]
async fn statuses_above_the_limit_keep_their_code_and_name_it() {
    for status in large() {
        let server = Server::start_failing(status.clone());
        let factory = GrpcFactory::over(HttpFactory::new().max_header_size(10_000));
        let mut client = client(factory, server.instance());
        let unary = client.one(message("hello")).await.expect_err("fails");
        let mut stream = client.repeat(message("fail as set")).await.expect("begins").into_inner();
        let streamed = loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("no status"),
                Err(status) => break status,
            }
        };
        for seen in [unary, streamed] {
            assert_eq!(seen.code(), Code::DataLoss, "{seen:?}");
            assert!(seen.message().contains("max_header_size"), "{seen:?}");
        }
    }
}
