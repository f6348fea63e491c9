use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufWriter, duplex},
    net::TcpStream,
};

use super::*;

/// A dropped listener resets them, and their requests may have been read.
#[tokio::test]
async fn waiting_connections_are_accepted_before_the_listener_closes() {
    let mut listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let (address, connections) = (listener.local_addr().expect("bound"), listener.connections());
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
async fn shut_down_connection_reads_until_its_peer_has_closed_too() {
    let mut listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut client = TcpStream::connect(address).await.expect("it listens");
    let (mut accepted, _) = listener.accept().await;
    client.write_all(&[0; 10_000]).await.expect("it is open");
    accepted.write_all(b"bye").await.expect("it is open");
    let bound = Duration::from_millis(10);
    timeout(bound, accepted.shutdown()).await.expect_err("the client has not closed");
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.expect("no reset");
    assert_eq!(read, b"bye");
    drop(client);
    let closed = timeout(Duration::from_secs(10), accepted.shutdown()).await;
    closed.expect("it is closed").expect("in order");
}

#[tokio::test]
async fn aborted_connection_is_neither_read_nor_written() {
    let mut listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let (address, connections) = (listener.local_addr().expect("bound"), listener.connections());
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
    let nameless = Addresses { peer: None, local: None };
    let mut accepted = connections.add(Box::pin(BufWriter::new(io)), nameless);
    accepted.write_all(&[0; 100]).await.expect("it has a buffer");
    let bound = Duration::from_millis(10);
    timeout(bound, accepted.shutdown()).await.expect_err("its peer reads nothing");
    connections.abort();
    let ended = timeout(Duration::from_secs(10), accepted.shutdown()).await.expect("it ends");
    assert_eq!(ended.expect_err("aborted").kind(), io::ErrorKind::ConnectionAborted);
}
