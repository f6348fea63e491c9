use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufWriter, duplex},
    net::TcpStream,
    time::Instant,
};
use tower_sd_testkit::loopback::own_address;

use super::*;

async fn listening() -> (Listener, SocketAddr, Connections) {
    let listener = Listener::bind((own_address(), 0)).await.expect("a free port");
    let (address, connections) = (listener.local_addr().expect("bound"), listener.connections());
    (listener, address, connections)
}

/// A dropped listener resets them, and their requests may have been read.
#[tokio::test]
async fn waiting_connections_are_accepted_before_the_listener_closes() {
    let (mut listener, address, connections) = listening().await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(TcpStream::connect(address).await.expect("it listens"));
    }
    connections.stop_accepting();
    let mut accepted = Vec::new();
    while let Ok(connection) = timeout(Duration::from_millis(200), listener.accept()).await {
        accepted.push(connection);
    }
    assert_eq!((accepted.len(), connections.n_open()), (3, 3));
    TcpStream::connect(address).await.expect_err("it is closed");
}

/// Otherwise bytes that arrive later reset the connection, and with it an unread GOAWAY of HTTP/2.
#[tokio::test]
async fn closed_connection_reads_until_its_peer_has_closed_too() {
    let (mut listener, address, connections) = listening().await;
    let mut client = TcpStream::connect(address).await.expect("it listens");
    let (mut accepted, _) = listener.accept().await;
    client.write_all(&[0; 10_000]).await.expect("it is open");
    accepted.write_all(b"bye").await.expect("it is open");
    accepted.shutdown().await.expect("it is open");
    drop(accepted);
    assert_eq!(connections.n_open(), 1, "the client has not closed");
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.expect("no reset");
    assert_eq!(read, b"bye");
    drop(client);
    timeout(Duration::from_secs(10), connections.none_open()).await.expect("it is closed");
}

#[tokio::test]
async fn closed_connection_reads_for_a_moment_from_a_busy_peer() {
    let (mut listener, address, connections) = listening().await;
    let mut client = TcpStream::connect(address).await.expect("it listens");
    let (mut accepted, _) = listener.accept().await;
    accepted.shutdown().await.expect("it is open");
    drop(accepted);
    let sends_on = async {
        // A reset comes with the end.
        while client.write_all(&[0; 1000]).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let closed = timeout(Duration::from_secs(10), connections.none_open());
    tokio::join!(closed, sends_on).0.expect("bounded");
}

/// A tunnel to a backend that has finished, while its client still uploads.
#[tokio::test]
async fn half_that_is_shut_down_reads_nothing_of_the_other() {
    let (mut listener, address, _connections) = listening().await;
    let mut client = TcpStream::connect(address).await.expect("it listens");
    let (accepted, _) = listener.accept().await;
    let (mut reader, mut writer) = tokio::io::split(accepted);
    let mut late = [0; 4];
    let uploads = async {
        sleep(Duration::from_millis(10)).await;
        client.write_all(b"late").await
    };
    let reads = timeout(Duration::from_secs(10), reader.read_exact(&mut late));
    let (shut, read, sent) = tokio::join!(writer.shutdown(), reads, uploads);
    sent.and(shut).expect("it is open");
    read.expect("it is sent").expect("it is open");
    assert_eq!(&late, b"late");
}

const NAMELESS: Addresses = Addresses { peer: None, local: None };

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The GOAWAY and PING of a server that leaves.
const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0\
    \0\0\x08\x06\0\0\0\0\0shutdown";

/// What a reader gets of a connection whose peer has sent `first` before its server leaves and
/// writes `written`, and `then` a second later; and after which time.
async fn leaving(first: &[u8], written: &[u8], then: &[u8]) -> (io::Result<usize>, Duration) {
    let (io, mut peer) = duplex(100);
    let connections = Connections::new();
    let (mut accepted, mut writer) = tokio::io::split(connections.add(Box::pin(io), NAMELESS));
    let mut buffer = [0; 100];
    peer.write_all(first).await.expect("it is open");
    let read_all = async {
        accepted.read_exact(&mut buffer[..first.len()]).await?;
        if !then.is_empty() {
            accepted.read_exact(&mut buffer[..then.len()]).await?;
        }
        accepted.read(&mut buffer).await
    };
    let leave = async {
        sleep(Duration::from_secs(60)).await;
        connections.leave();
        writer.write_all(written).await.expect("it is open");
        sleep(Duration::from_secs(1)).await;
        peer.write_all(then).await.expect("it is open");
        pending::<()>().await;
    };
    let begun = Instant::now() + Duration::from_secs(60);
    let read = tokio::select! {
        read = read_all => read,
        () = leave => unreachable!("it is pending"),
        () = sleep(Duration::from_secs(1_060)) => Ok(usize::MAX),
    };
    (read, begun.elapsed())
}

/// A server that waits for a preface, or for the acknowledgement of its GOAWAY, ends by them alone.
#[tokio::test(start_paused = true)]
async fn silent_peers_end_when_the_server_leaves() {
    let (read, after) = leaving(b"", b"", b"").await;
    assert_eq!((read.expect("an end"), after), (0, Duration::ZERO));
    let (read, after) = leaving(PREFACE, GOAWAY, b"").await;
    assert_eq!(read.expect_err("silent").kind(), io::ErrorKind::TimedOut);
    assert!((5..6).contains(&after.as_secs()), "{after:?}");
    // One that acknowledges it, and one of HTTP/1 with a request in flight.
    for (first, then) in [(PREFACE, &b"ack"[..]), (b"GET / HTTP/1.1\r\n", b"")] {
        let (read, after) = leaving(first, GOAWAY, then).await;
        assert_eq!((read.expect("nothing"), after), (usize::MAX, Duration::from_secs(1_000)));
    }
}

/// A server that waits for its requests before its GOAWAY, which it has not written.
#[tokio::test(start_paused = true)]
async fn peer_without_ping_to_acknowledge_is_not_silent() {
    let response = b"\0\0\x01\x01\x04\0\0\0\x01\x88";
    // One of two requests in flight, or none, has ended. The acknowledgement is the server's own.
    for written in [&b""[..], response, b"\0\0\x08\x06\x01\0\0\0\0shutdown"] {
        let (read, after) = leaving(PREFACE, written, b"").await;
        assert_eq!((read.expect("nothing"), after), (usize::MAX, Duration::from_secs(1_000)));
    }
}

/// A client on a slow line acknowledges after what was sent before.
#[tokio::test(start_paused = true)]
async fn peer_that_reads_is_not_silent() {
    let (io, mut peer) = duplex(10);
    let connections = Connections::new();
    let (mut reader, mut writer) = tokio::io::split(connections.add(Box::pin(io), NAMELESS));
    let mut buffer = [0; 10];
    peer.write_all(b"PRI").await.expect("it is open");
    reader.read_exact(&mut buffer[..3]).await.expect("it is open");
    connections.leave();
    let writes = async {
        writer.write_all(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 0]).await.expect("it is open");
        loop {
            writer.write_all(&[0; 10]).await.expect("it is open");
        }
    };
    let reads_slowly = async {
        let mut buffer = [0; 10];
        for _ in 0..10 {
            sleep(Duration::from_secs(3)).await;
            peer.read_exact(&mut buffer).await.expect("it is open");
        }
        peer.write_all(b"ack").await.expect("it is open");
        pending::<()>().await;
    };
    tokio::select! {
        read = reader.read(&mut buffer) => assert_eq!(read.expect("it is open"), 3),
        () = writes => {}
        () = reads_slowly => {}
    }
}

#[tokio::test]
async fn aborted_connection_is_neither_read_nor_written() {
    let (mut listener, address, connections) = listening().await;
    let client = TcpStream::connect(address).await.expect("it listens");
    let (mut accepted, _) = listener.accept().await;
    drop(listener);
    assert_eq!(connections.n_open(), 1);
    let mut byte = [0];
    let abort = async { connections.abort() };
    let ((), read) = tokio::join!(abort, accepted.read(&mut byte));
    assert_eq!(read.expect_err("aborted").kind(), io::ErrorKind::ConnectionAborted);
    accepted.write_all(b"x").await.expect_err("aborted");
    drop((accepted, client));
    connections.none_open().await;
}

/// TLS writes its own end before it closes, which a peer that reads nothing prevents.
#[tokio::test]
async fn aborted_connection_does_not_wait_for_its_last_bytes() {
    let (io, _reads_nothing) = duplex(1);
    let connections = Connections::new();
    let mut accepted = connections.add(Box::pin(BufWriter::new(io)), NAMELESS);
    accepted.write_all(&[0; 100]).await.expect("it has a buffer");
    let bound = Duration::from_millis(10);
    timeout(bound, accepted.shutdown()).await.expect_err("its peer reads nothing");
    connections.abort();
    let ended = timeout(Duration::from_secs(10), accepted.shutdown()).await.expect("it ends");
    assert_eq!(ended.expect_err("aborted").kind(), io::ErrorKind::ConnectionAborted);
}

/// Otherwise, connections of clients that vanished pile up.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn accepted_sockets_probe_their_peers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (_client, (stream, _peer)) = (client.expect("it listens"), accepted.expect("one comes"));
    tune(&stream).expect("Linux has them all");
    let socket = SockRef::from(&stream);
    assert!(socket.tcp_nodelay().expect("read") && socket.keepalive().expect("read"));
    assert_eq!(socket.tcp_keepalive_time().expect("read"), Duration::from_secs(15));
    assert_eq!(socket.tcp_keepalive_interval().expect("read"), Duration::from_secs(15));
    assert_eq!(socket.tcp_keepalive_retries().expect("read"), 2);
    // It would end those of clients that live and read nothing: a paused player, a batch job.
    assert_eq!(socket.tcp_user_timeout().expect("read"), None);
}
