//! Of the encoding; and a client for the tests of others.

use std::{io, net::SocketAddr, sync::Mutex, time::Duration};

use proptest::{collection::vec, prelude::*};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tower_sd_core::async_trait;
use tower_sd_net::{Connector, Dialer, Io, Target};

use super::{Client, Server, Settings, jute::*};
use crate::BACKEND;

/// Of a server on loopback, with long sessions.
pub(crate) fn client(port: u16) -> Client {
    client_by(Dialer::new(), port)
}

fn client_by(dialer: Dialer, port: u16) -> Client {
    let server = Server { name: "h".into(), target: Target::host("127.0.0.1", port) };
    let settings = Settings {
        servers: vec![server],
        dialer,
        tls: None,
        credentials: None,
        session_timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(2),
        max_reply: 1 << 20,
        max_request: 1 << 20,
    };
    Client::new(BACKEND, settings)
}

/// A name whose address is another one each time.
#[derive(Debug)]
struct Moving(Mutex<Vec<SocketAddr>>);

#[async_trait]
impl Connector for Moving {
    async fn resolve(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        let address = self.0.lock().expect("no panic").pop();
        Ok(address.into_iter().collect())
    }

    async fn connect(&self, _target: &Target, address: SocketAddr) -> io::Result<Io> {
        TcpStream::connect(address).await.map(Io::Tcp)
    }
}

#[tokio::test]
async fn name_is_resolved_for_each_connection() {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let (first, second) = (bind().await.expect("loopback"), bind().await.expect("loopback"));
    let addresses = [&second, &first].map(|it| it.local_addr().expect("it is bound"));
    let client = client_by(Dialer::new().connector(Moving(Mutex::new(addresses.into()))), 1);
    let _session = client.session();
    for listener in [first, second] {
        // Closed without a session.
        let accepted = timeout(Duration::from_secs(10), listener.accept()).await;
        drop(accepted.expect("the client comes").expect("it listens"));
    }
}

#[test]
fn frame_has_its_length_and_its_fields() {
    let frame = Writer::new().int(-1).long(2).flag(true).text("ä").buffer(&[]).finish();
    assert_eq!(frame[..LENGTH], [0, 0, 0, 23]);
    let mut reader = Reader::new(&frame[LENGTH..]);
    assert_eq!((reader.int(), reader.long(), reader.flag()), (Ok(-1), Ok(2), Ok(true)));
    assert_eq!((reader.text(), reader.buffer()), (Ok("ä"), Ok(&[][..])));
    assert_eq!((reader.int(), reader.rest()), (Err(Malformed), &[][..]));
}

#[test]
fn length_of_minus_one_is_an_empty_text_and_list() {
    let bytes = (-1_i32).to_be_bytes();
    assert_eq!(Reader::new(&bytes).text(), Ok(""));
    assert_eq!(Reader::new(&bytes).texts(), Ok(Vec::new()));
    assert_eq!(Reader::new(&(-2_i32).to_be_bytes()).buffer(), Err(Malformed));
}

#[test]
fn number_of_texts_is_bounded_by_the_frame() {
    let frame = Writer::new().int(i32::MAX).text("a").finish();
    assert_eq!(Reader::new(&frame[LENGTH..]).texts(), Err(Malformed));
}

proptest! {
    #[test]
    fn texts_survive(texts in vec(".*", 0..20)) {
        let frame = Writer::new().texts(&texts).finish();
        prop_assert_eq!(Reader::new(&frame[LENGTH..]).texts(), Ok(texts));
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        drop(Reader::new(&bytes).texts());
    }
}
