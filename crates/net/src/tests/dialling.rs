use std::{net::SocketAddr, time::Duration};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tower_sd_core::AddressPolicy;

use super::server::{BlackHole, Hosts, Server, chain, refusing};
use crate::{DialError, DialErrorKind, Dialer, Io, Target};

async fn greet(mut stream: TcpStream) {
    stream.write_all(b"hello").await.expect("open");
}

async fn greeting(mut io: Io) -> String {
    let mut text = String::new();
    io.read_to_string(&mut text).await.expect("open");
    text
}

async fn dial(dialer: Dialer, host: &str) -> Result<Io, DialError> {
    let target = Target::host(host, 80);
    dialer.dial(&target, None, &[]).await.map(|connection| connection.io)
}

#[tokio::test]
async fn black_holed_address_costs_one_attempt_delay() {
    let (hole, server) = (BlackHole::new().await, Server::start(greet).await);
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let dialer = Dialer::new().connector(Hosts(vec![hole.address, server.address]));
        let io = dial(dialer, "dual.test").await.expect("connected");
        times.push(start.elapsed());
        assert_eq!(greeting(io).await, "hello");
    }
    // The best of several: other tests run at the same time.
    let best = times.iter().min().expect("some");
    assert!(*best >= Duration::from_millis(250), "{times:?}");
    assert!(*best <= Duration::from_millis(400), "{times:?}");
}

#[tokio::test]
async fn refused_address_is_followed_by_the_next() {
    let server = Server::start(greet).await;
    let addresses = vec![refusing(), server.address];
    let dialer = Dialer::new().attempt_delay(Duration::from_secs(60)).connector(Hosts(addresses));
    assert_eq!(greeting(dial(dialer, "dual.test").await.expect("connected")).await, "hello");
}

#[tokio::test]
async fn operating_system_resolves_names() {
    let server = Server::start(greet).await;
    let target = Target::host("localhost", server.address.port());
    let connected = Dialer::new().dial(&target, None, &[]).await.expect("connected");
    assert_eq!(greeting(connected.io).await, "hello");
}

#[tokio::test]
async fn name_that_resolves_to_a_denied_address_is_refused() {
    let metadata: SocketAddr = "169.254.169.254:80".parse().expect("an address");
    let dialer = || Dialer::new().addresses(AddressPolicy::default());
    let error = dial(dialer().connector(Hosts(vec![metadata])), "innocent.test").await;
    let error = error.expect_err("denied");
    assert_eq!(error.kind(), DialErrorKind::Denied);
    assert_eq!(
        chain(&error),
        "address of innocent.test:80 denied: 169.254.169.254: in a denied network"
    );
    // The forms of 169.254.169.254 that getaddrinfo reads and Rust does not.
    for numeric in ["2852039166", "0xa9fea9fe", "169.254.43518", "0251.0376.0251.0376"] {
        let error = dial(dialer(), numeric).await.expect_err("denied");
        assert_eq!(error.kind(), DialErrorKind::Denied, "{numeric}: {error}");
    }
    let server = Server::start(greet).await;
    let mixed = Hosts(vec![metadata, server.address]);
    let io = dial(dialer().connector(mixed), "mixed.test").await.expect("the other one");
    assert_eq!(greeting(io).await, "hello");
}

#[tokio::test]
async fn errors_have_the_reason_of_each_address() {
    let (first, second) = (refusing(), refusing());
    let error = dial(Dialer::new().connector(Hosts(vec![first, second])), "dead.test").await;
    let error = error.expect_err("refused");
    assert_eq!(error.kind(), DialErrorKind::Connect);
    let text = chain(&error);
    assert!(text.starts_with("cannot connect to dead.test:80 ("), "{text}");
    assert!(text.contains(&format!("{first}: Connection refused")), "{text}");
    assert!(text.contains(&format!("{second}: Connection refused")), "{text}");

    let error = dial(Dialer::new().connector(Hosts(Vec::new())), "nowhere.test").await;
    assert_eq!(error.expect_err("no address").kind(), DialErrorKind::Resolve);
}

#[tokio::test]
async fn connecting_is_bounded() {
    let (hole, dead) = (BlackHole::new().await, refusing());
    let timeout = Duration::from_millis(300);
    let dialer = Dialer::new().connect_timeout(timeout).connector(Hosts(vec![dead, hole.address]));
    let error = dial(dialer, "hole.test").await.expect_err("silent");
    assert_eq!(error.kind(), DialErrorKind::Timeout);
    let text = chain(&error);
    assert!(text.starts_with("no connection to hole.test:80 (within 300ms)"), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}

#[tokio::test]
async fn dead_peers_are_noticed_by_socket_options() {
    let server = Server::start(greet).await;
    let connection = Dialer::new().dial(&server.target(), None, &[]).await.expect("connected");
    let Io::Tcp(stream) = connection.io else {
        panic!("in the clear");
    };
    let socket = SockRef::from(&stream);
    assert!(socket.keepalive().expect("read"));
    assert!(stream.nodelay().expect("read"));
    #[cfg(target_os = "linux")]
    {
        assert_eq!(socket.tcp_keepalive_time().expect("read"), Duration::from_secs(15));
        assert_eq!(socket.tcp_keepalive_interval().expect("read"), Duration::from_secs(15));
        let user_timeout = socket.tcp_user_timeout().expect("read");
        assert_eq!(user_timeout, Some(Duration::from_secs(30)));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_are_connected_to() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).expect("binds");
    let accepting = async {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        stream.write_all(b"hello").await.expect("open");
    };
    let target = Target::unix(&path);
    let dialer = Dialer::new();
    let (connected, ()) = tokio::join!(dialer.dial(&target, None, &[]), accepting);
    assert_eq!(greeting(connected.expect("connected").io).await, "hello");

    let missing = Target::unix(folder.path().join("none"));
    let error = dialer.dial(&missing, None, &[]).await.expect_err("no such file");
    assert!(chain(&error).contains("No such file"), "{}", chain(&error));
}

/// Its backlog is full for a moment; over TCP the system waits by itself.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn busy_unix_socket_is_waited_for() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("socket");
    let address = SockAddr::unix(&path).expect("short");
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    let listener = socket();
    listener.bind(&address).expect("binds");
    listener.listen(0).expect("listens");
    let mut waiting = Vec::new();
    let full = loop {
        let client = socket();
        client.set_nonblocking(true).expect("a socket");
        match client.connect(&address) {
            Ok(()) => waiting.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
    let target = Target::unix(&path);
    let dialer = Dialer::new();
    let accept = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        listener.accept().expect("one waits")
    };
    let (connected, _accepted) = tokio::join!(dialer.dial(&target, None, &[]), accept);
    connected.expect("connected");
    // It stays full: the connect timeout bounds the wait.
    let bounded = Dialer::new().connect_timeout(Duration::from_millis(300));
    let error = bounded.dial(&target, None, &[]).await.expect_err("full");
    assert_eq!(error.kind(), DialErrorKind::Timeout);
}
