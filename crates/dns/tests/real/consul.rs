//! Consul's own DNS.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    select,
    time::{sleep, timeout},
    try_join,
};
use tower_sd_core::{Error, Instancer, LossPolicy, RegistryConfig, Snapshot, TaskGroup};
use tower_sd_dns::{Dns, DnsConfig, Query, Transport};
use tower_sd_testkit::{
    real::Consul,
    servers::{configured, required},
    wire::request,
};

use crate::scene::{SOON, hasty, sees_that};

/// Passes questions over TCP on, and counts them.
struct Counting {
    address: SocketAddr,
    n_questions: Arc<AtomicUsize>,
    _tasks: TaskGroup,
}

impl Counting {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let (tasks, n_questions) = (TaskGroup::new(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&n_questions);
        tasks.spawn(async move |stop| {
            let pass_all = async {
                // One connection after the other: the client has no more.
                while let Ok((client, _)) = listener.accept().await {
                    let _ended = pass(client, server, &counter).await;
                }
            };
            select! {
                () = stop.requested() => {}
                () = pass_all => {}
            }
        });
        Self { address, n_questions, _tasks: tasks }
    }

    fn n_questions(&self) -> usize {
        self.n_questions.load(SeqCst)
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, counter: &AtomicUsize) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let questions = async {
        while let Ok(n) = from_client.read_u16().await {
            let mut question = vec![0; n.into()];
            from_client.read_exact(&mut question).await?;
            counter.fetch_add(1, SeqCst);
            to_server.write_u16(n).await?;
            to_server.write_all(&question).await?;
        }
        to_server.shutdown().await
    };
    let answers = copy(&mut from_server, &mut to_client);
    try_join!(questions, answers).map(drop)
}

async fn register_sixty(consul: &Consul) {
    for n in 1..=60 {
        let body = format!(
            r#"{{"ID":"web-{n}","Name":"web","Address":"10.0.0.{n}","Port":{},"Weights":{{"Passing":{n},"Warning":1}}}}"#,
            8000 + n
        );
        let target = "/v1/agent/service/register";
        let answer = request(consul.address(), "PUT", target, &body).await;
        assert_eq!(answer.expect("it answers").status, 200);
    }
}

/// Over UDP it would be 19 of them, others every time.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test"]
async fn sixty_instances_are_all_seen_and_stay() {
    for binary in configured("consul").unwrap_or_else(|missing| panic!("{missing}")) {
        let consul = Consul::dev(binary).await.expect("it starts");
        register_sixty(&consul).await;
        let door = Counting::start(consul.dns_address()).await;
        // A single answer with fewer would be seen.
        let registry = RegistryConfig::default().loss(LossPolicy::Accept).follow(hasty());
        let dns = over_tcp(door.address, registry);
        // RFC 2782's form; the second label would be a tag if it were not "tcp".
        let query = Query::srv("_web._tcp.service.consul").expect("a name");
        let instancer = dns.instancer(query);
        let mut subscription = instancer.subscribe();
        let all = |snapshot: &Snapshot| snapshot.instances().len() == 60;
        let snapshot = sees_that(&mut subscription, SOON * 6, all).await;
        let seventh = snapshot.instances().iter().find(|it| it.host() == "10.0.0.7");
        let shown = seventh.map(|it| (it.port(), it.weight(), it.priority()));
        assert_eq!(shown, Some((8007, 7, 1)));

        let before = (door.n_questions(), subscription.stats());
        let twenty_more = async {
            // And one more, so that the last of the twenty has been answered.
            while door.n_questions() <= before.0 + 20 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON * 6, twenty_more).await.expect("it is queried all the time");
        assert_eq!(subscription.stats(), before.1, "no update, no error");
        assert!(all(&subscription.snapshot()));
        assert!(subscription.snapshot().freshness().is_fresh());

        let plain = Query::srv("web.service.consul").expect("a name");
        let mut plain = dns.instancer(plain).subscribe();
        sees_that(&mut plain, SOON * 6, all).await;
    }
}

/// With so much time that a busy machine is no reason for an error.
fn over_tcp(server: SocketAddr, registry: RegistryConfig) -> Dns {
    let config = DnsConfig::new([server]).transport(Transport::TcpFirst);
    Dns::new(config.timeout(Duration::from_secs(20)).registry(registry))
}

fn report(error: &Error) -> String {
    format!("{error}: {:?}", std::error::Error::source(error))
}

/// Consul closes a connection after 128 questions, and hickory turns away more than 32 concurrent
/// ones.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test"]
async fn five_hundred_names_share_a_connection() {
    let consul = Consul::dev(required("consul")).await.expect("it starts");
    let dns = over_tcp(consul.dns_address(), RegistryConfig::default());
    let follow_one = |n| {
        let query = Query::srv(&format!("n{n}.service.consul")).expect("a name");
        dns.instancer(query)
    };
    let subscriptions: Vec<_> = (0..500).map(|n| follow_one(n).subscribe()).collect();
    for mut subscription in subscriptions {
        let synced = |snapshot: &Snapshot| {
            assert_eq!(snapshot.freshness().error().map(report), None);
            snapshot.freshness().is_synced()
        };
        sees_that(&mut subscription, SOON * 6, synced).await;
        assert_eq!(subscription.stats().errors, 0);
    }
}
