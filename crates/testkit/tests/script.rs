//! What a client gets from the scripted server.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tower_sd_testkit::{
    script::{Reply, Script},
    wire::request,
};

#[tokio::test]
async fn requests_are_recorded_whole() {
    let script = Script::start().await.expect("loopback");
    script.reply(Reply::new(200));
    let ask = request(script.address(), "PUT", "/v1/register?replace=true", "{}");
    ask.await.expect("an answer");
    let received = script.next().await;
    assert_eq!(received.method, "PUT");
    assert_eq!(received.target, "/v1/register?replace=true");
    assert_eq!(received.body, "{}");
    assert_eq!(received.headers["content-length"], "2");
}

#[tokio::test]
async fn request_waits_until_it_is_given_a_reply() {
    let script = Script::start().await.expect("loopback");
    let ask = request(script.address(), "GET", "/blocking", "");
    let answer = async {
        script.next().await;
        sleep(Duration::from_millis(50)).await;
        script.reply(Reply::new(200).header("x-index", "7").body("[]"));
    };
    let start = Instant::now();
    let (answer, ()) = tokio::join!(ask, answer);
    let answer = answer.expect("an answer");
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert!(answer.head.contains("x-index: 7"), "{answer:?}");
    assert!(answer.head.contains("content-length: 2"), "{answer:?}");
}

#[tokio::test]
async fn closure_sees_the_request_that_it_answers() {
    let answer = |received: &tower_sd_testkit::script::Received| {
        Reply::new(200).body(received.target.clone())
    };
    let script = Script::answering(answer).await.expect("loopback");
    for target in ["/a", "/b?c"] {
        let answer = request(script.address(), "GET", target, "").await;
        assert_eq!(answer.expect("an answer").body, target);
    }
}

#[tokio::test]
async fn body_comes_in_pieces_with_pauses() {
    let pause = Duration::from_millis(50);
    let reply = Reply::new(200).chunk("one").pause(pause).chunk("two");
    let mut client = Client::ask(reply).await;
    client.read_until("one").await;
    let start = Instant::now();
    client.read_until("two").await;
    assert!(start.elapsed() >= pause / 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn cut_body_is_shorter_than_its_content_length() {
    let reply = Reply::new(200).header("content-length", "100").chunk("one").cut();
    let mut client = Client::ask(reply).await;
    let text = client.read_to_end().await;
    assert!(text.ends_with("\r\n\r\none"), "{text}");
}

#[tokio::test]
async fn closed_connection_has_no_answer() {
    let mut client = Client::ask(Reply::closed()).await;
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn hanging_body_and_missing_reply_leave_the_connection_open() {
    let mut client = Client::ask(Reply::new(200).chunk("one").hang()).await;
    client.read_until("one").await;
    client.is_silent().await;
    let mut client = Client::ask(Reply::never()).await;
    client.is_silent().await;
}

#[tokio::test]
async fn connections_are_counted_and_end_with_the_script() {
    let mut client = Client::ask(Reply::never()).await;
    assert_eq!(client.script.n_connections(), 1);
    client.script.close().await;
    assert_eq!(client.script.n_connections(), 0);
    assert_eq!(client.read_to_end().await, "");
}

struct Client {
    script: Script,
    stream: TcpStream,
    text: String,
}

impl Client {
    async fn ask(reply: Reply) -> Self {
        let script = Script::start().await.expect("loopback");
        script.reply(reply);
        let mut stream = TcpStream::connect(script.address()).await.expect("it listens");
        let ask = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(ask).await.expect("it is open");
        script.next().await;
        Self { script, stream, text: String::new() }
    }

    async fn read_until(&mut self, end: &str) {
        let mut buffer = [0; 1024];
        while !self.text.contains(end) {
            let n = self.stream.read(&mut buffer).await.expect("it is open");
            assert_ne!(n, 0, "ended before {end:?}: {}", self.text);
            self.text += &String::from_utf8_lossy(&buffer[..n]);
        }
    }

    async fn read_to_end(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = self.stream.read_to_end(&mut bytes);
        let read = timeout(Duration::from_secs(5), read).await;
        read.expect("it ends").expect("without an error");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn is_silent(&mut self) {
        let mut buffer = [0; 1024];
        let silence = timeout(Duration::from_millis(100), self.stream.read(&mut buffer)).await;
        assert!(silence.is_err(), "{silence:?}");
    }
}
