//! Many requests while servers join and leave the registry at random.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_sd_balance::{
    AddressPolicy, Endpointer, Instance, Instancer, LossPolicy, Publisher, RegistryConfig, Sink,
    Subscription, TaskGroup,
};
use tower_sd_http::{HttpEndpoint, HttpFactory, HttpProtocol};

use crate::{Sent, fetch, get, retried};

/// A registry that lists what a test sets.
struct Listed(Subscription);

impl Instancer for Listed {
    fn subscribe(&self) -> Subscription {
        self.0.clone()
    }
}

/// Counts and answers every request on connections that are kept alive.
async fn serve(tasks: &TaskGroup, n_answered: &Arc<AtomicUsize>) -> Instance {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("an address").port();
    let (connections, n_answered) = (tasks.clone(), Arc::clone(n_answered));
    tasks.spawn(|stop| async move {
        while let Some(Ok((stream, _))) = stop_or(&stop, listener.accept()).await {
            let n_answered = Arc::clone(&n_answered);
            connections.spawn(|stop| async move {
                stop_or(&stop, answer(stream, &n_answered)).await;
            });
        }
    });
    Instance::new("127.0.0.1", port)
}

async fn stop_or<F: Future>(stop: &tower_sd_balance::Shutdown, future: F) -> Option<F::Output> {
    tokio::select! {
        () = stop.requested() => None,
        output = future => Some(output),
    }
}

async fn answer(mut stream: TcpStream, n_answered: &AtomicUsize) -> Option<()> {
    let mut read = Vec::new();
    loop {
        while !read.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        }
        read.clear();
        n_answered.fetch_add(1, Relaxed);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok()?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_thousand_requests_survive_random_churn() {
    const CLIENTS: usize = 16;
    const REQUESTS: usize = 100_000;
    let tasks = TaskGroup::new();
    let n_answered: [Arc<AtomicUsize>; 3] = Default::default();
    let mut servers = Vec::new();
    for n_answered in &n_answered {
        servers.push(serve(&tasks, n_answered).await);
    }
    let config = RegistryConfig::default()
        .loss(LossPolicy::Accept)
        .addresses(AddressPolicy::any())
        .removal_wait(Duration::ZERO);
    let mut publisher = Publisher::new("test", "test", config);
    publisher.set(servers.clone().into());
    let endpointer: Endpointer<HttpEndpoint<Sent>> =
        Endpointer::new(&Listed(publisher.subscribe()), HttpFactory::new());
    let client = retried(&endpointer, HttpProtocol::new());
    let n_done = Arc::new(AtomicUsize::new(0));
    let mut load = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, n_done) = (client.clone(), Arc::clone(&n_done));
        load.spawn(async move {
            while n_done.fetch_add(1, Relaxed) < REQUESTS {
                assert_eq!(fetch(&client, get()).await.expect("an answer"), "ok");
            }
        });
    }
    let mut rng = 1_u32;
    while n_done.load(Relaxed) < REQUESTS {
        // A linear congruential generator: its upper bits choose who is listed, the first one
        // always.
        rng = rng.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let kept = servers.iter().enumerate().filter(|(i, _)| *i == 0 || rng >> (28 + i) & 1 == 1);
        publisher.set(kept.map(|(_, server)| server.clone()).collect());
        let _due = timeout(Duration::from_millis(2), publisher.due()).await;
        sleep(Duration::from_millis(3)).await;
        // A client whose request has failed has panicked.
        load.try_join_next().map_or(Ok(()), |done| done).expect("0 requests failed");
    }
    load.join_all().await;
    let in_flight: usize = endpointer.report().endpoints.iter().map(|e| e.in_flight).sum();
    assert_eq!(in_flight, 0);
    assert!(n_answered.iter().all(|n| n.load(Relaxed) > REQUESTS / 20), "{n_answered:?}");
    endpointer.close().await;
    tasks.close().await;
}
