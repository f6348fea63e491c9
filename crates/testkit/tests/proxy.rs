//! What a client sees through the fault proxy.

use std::{io::ErrorKind, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tower_sd_core::TaskGroup;
use tower_sd_testkit::{
    proxy::{Fault, Proxy},
    usage::connections_to,
};

#[tokio::test]
async fn bytes_pass_in_both_directions() {
    let scene = Scene::new().await;
    let mut client = scene.connect().await;
    assert_eq!(ask(&mut client).await, *b"hello");
    assert_eq!((scene.proxy.n_open(), scene.proxy.n_accepted()), (1, 1));
    drop(client);
    is_left_by_all(&scene.proxy).await;
}

#[tokio::test]
async fn server_that_keeps_its_half_open_does_not_keep_the_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback");
    let server = listener.local_addr().expect("bound");
    let proxy = Proxy::start(server).await.expect("loopback");
    let client = TcpStream::connect(proxy.address()).await.expect("it accepts");
    let (mut kept, _) = listener.accept().await.expect("it is passed on");
    drop(client);
    assert_eq!(kept.read(&mut [0; 5]).await.expect("the end is passed on"), 0);
    is_left_by_all(&proxy).await;
    assert_eq!(connections_to(server).expect("Linux"), 0);
}

#[tokio::test]
async fn delay_holds_every_piece_up() {
    let scene = Scene::new().await;
    let mut client = scene.connect().await;
    scene.proxy.set(Fault::Delay(Duration::from_millis(50))).await;
    let start = Instant::now();
    assert_eq!(ask(&mut client).await, *b"hello");
    assert!(start.elapsed() >= Duration::from_millis(100), "both directions");
}

#[tokio::test]
async fn black_hole_is_silent_and_what_was_sent_arrives_after_it() {
    let scene = Scene::new().await;
    let mut client = scene.connect().await;
    scene.proxy.set(Fault::BlackHole).await;
    client.write_all(b"hello").await.expect("it is open");
    let mut answer = [0; 5];
    let silence = timeout(Duration::from_millis(100), client.read_exact(&mut answer)).await;
    assert!(silence.is_err(), "{silence:?}");
    let mut newcomer = scene.connect().await;
    scene.proxy.set(Fault::None).await;
    client.read_exact(&mut answer).await.expect("it is open");
    assert_eq!(answer, *b"hello");
    assert_eq!(ask(&mut newcomer).await, *b"hello");
}

#[tokio::test]
async fn garbled_answers_have_the_right_length_and_wrong_bytes() {
    let scene = Scene::new().await;
    let mut client = scene.connect().await;
    scene.proxy.set(Fault::Garble).await;
    assert_eq!(ask(&mut client).await, b"hello".map(|byte| byte ^ 0x80));
    scene.proxy.set(Fault::None).await;
    assert_eq!(ask(&mut client).await, *b"hello");
}

#[tokio::test]
async fn half_closed_connection_has_an_end_and_can_be_written_to() {
    let scene = Scene::new().await;
    let mut client = scene.connect().await;
    ask(&mut client).await;
    scene.proxy.set(Fault::HalfClose).await;
    assert_eq!(client.read(&mut [0; 5]).await.expect("an end"), 0);
    client.write_all(b"hello").await.expect("the other half is open");
    assert_eq!(scene.proxy.n_open(), 1);
}

#[tokio::test]
async fn cut_connection_ends_and_a_new_one_too() {
    let scene = Scene::new().await;
    let mut client = scene.connect().await;
    ask(&mut client).await;
    scene.proxy.set(Fault::Cut).await;
    assert_eq!(scene.proxy.n_open(), 0);
    assert_eq!(client.read(&mut [0; 5]).await.expect("an end, not an error"), 0);
    let mut newcomer = scene.connect().await;
    assert_eq!(newcomer.read(&mut [0; 5]).await.expect("an end, not an error"), 0);
}

#[tokio::test]
async fn reset_connection_fails() {
    let scene = Scene::new().await;
    let mut client = scene.connect().await;
    ask(&mut client).await;
    scene.proxy.set(Fault::Reset).await;
    let error = client.read(&mut [0; 5]).await.expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn refusing_proxy_does_not_listen_until_it_passes_again() {
    let scene = Scene::new().await;
    let mut client = scene.connect().await;
    ask(&mut client).await;
    scene.proxy.set(Fault::Refuse).await;
    let error = client.read(&mut [0; 5]).await.expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let refused = TcpStream::connect(scene.proxy.address()).await;
    assert_eq!(refused.expect_err("the port is closed").kind(), ErrorKind::ConnectionRefused);
    scene.proxy.set(Fault::None).await;
    assert_eq!(ask(&mut scene.connect().await).await, *b"hello");
}

#[tokio::test]
async fn closed_proxy_leaves_no_task_behind() {
    let scene = Scene::new().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let mut client = scene.connect().await;
    ask(&mut client).await;
    scene.proxy.set(Fault::BlackHole).await;
    let n_tasks = metrics.num_alive_tasks();
    scene.proxy.close().await;
    // The one that accepts, and the connection's.
    assert!(metrics.num_alive_tasks() + 2 <= n_tasks);
}

struct Scene {
    proxy: Proxy,
    _echo: TaskGroup,
}

impl Scene {
    async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("loopback");
        let server = listener.local_addr().expect("bound");
        let echo = TaskGroup::new();
        echo.spawn(|stop| async move {
            let connections = TaskGroup::new();
            loop {
                tokio::select! {
                    () = stop.requested() => return,
                    accepted = listener.accept() => {
                        let (mut stream, _) = accepted.expect("it listens");
                        connections.spawn(|_stop| async move {
                            let (mut read, mut write) = stream.split();
                            // How it ends is the test's to look at.
                            let _ended = tokio::io::copy(&mut read, &mut write).await;
                        });
                    }
                }
            }
        });
        Self { proxy: Proxy::start(server).await.expect("loopback"), _echo: echo }
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.proxy.address()).await;
        stream.expect("it accepts")
    }
}

async fn is_left_by_all(proxy: &Proxy) {
    let left = timeout(Duration::from_secs(5), async {
        while proxy.n_open() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    });
    left.await.expect("an end is passed on");
}

async fn ask(client: &mut TcpStream) -> [u8; 5] {
    client.write_all(b"hello").await.expect("it is open");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).await.expect("an echo");
    answer
}
