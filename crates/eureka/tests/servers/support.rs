use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    select,
    time::{Instant, sleep, timeout},
};
use tower_sd_core::{
    Instance, Instancer, Registration, RegistrationHandle, Snapshot, Subscription,
};
use tower_sd_eureka::{Eureka, EurekaConfig, EurekaServer, Query};
use tower_sd_http::Client;
use tower_sd_testkit::{
    real,
    script::{Reply, Script},
    wait::shows_that,
    wire::request,
};

/// A client of these servers, with a lease of 3 s and reads every 500 ms.
///
/// The first requests of a server that has just started take seconds.
pub(crate) fn client(servers: &[&real::Eureka]) -> Eureka {
    let mut config = EurekaConfig::new(servers[0].url());
    for server in &servers[1..] {
        config = config.server(EurekaServer::new(server.url()));
    }
    let query = Query::new("").poll_interval(POLL);
    let config = config.ttl(LEASE).query(query).timeout(Duration::from_secs(10));
    Eureka::new(config).expect("URLs")
}

pub(crate) fn instance(id: &str, port: u16) -> Instance {
    Instance::new("10.0.0.7", port).with_id(id)
}

pub(crate) fn query(app: &str) -> Query {
    Query::new(app).poll_interval(POLL)
}

/// A registered server that answers, and a client that has found it.
pub(crate) struct Pair {
    pub(crate) server: Script,
    pub(crate) handle: RegistrationHandle,
    pub(crate) subscription: Subscription,
    client: Client,
}

impl Pair {
    pub(crate) async fn start(eureka: &Eureka, app: &str) -> Self {
        let server = Script::answering(|_| Reply::new(200).body("5")).await.expect("loopback");
        let (ip, port) = (server.address().ip().to_string(), server.address().port());
        let registration = Registration::new(app, Instance::new(ip, port)).fail_fast(BOUND);
        let handle = eureka.register(registration).await.expect("registered");
        let instancer = eureka.instancer(query(app));
        let mut subscription = instancer.subscribe();
        shows_that(&mut subscription, "the server", BOUND, |it| it.instances().len() == 1).await;
        let pair = Self { server, handle, subscription, client: Client::new(instancer) };
        // It connects: while a server of Java's is killed, this thread waits for its end.
        pair.request().await;
        pair
    }

    pub(crate) async fn sees(
        &mut self,
        what: &str,
        wanted: impl Fn(&Snapshot) -> bool + Send + Sync,
    ) -> Snapshot {
        shows_that(&mut self.subscription, what, BOUND, wanted).await
    }

    /// Sends a request every 20 ms while `disturbance` lasts; none may fail.
    pub(crate) async fn survives(&self, disturbance: impl Future<Output = ()>) -> usize {
        let n = AtomicUsize::new(0);
        let requests = async {
            loop {
                self.request().await;
                n.fetch_add(1, Relaxed);
                sleep(Duration::from_millis(20)).await;
            }
        };
        select! {
            () = requests => {}
            () = disturbance => {}
        }
        let n = n.load(Relaxed);
        assert!(n > 10, "only {n} requests");
        n
    }

    async fn request(&self) {
        let request = Request::get("http://app/").body(Full::<Bytes>::default());
        let sent = self.client.request(request.expect("a request"));
        let answer = timeout(Duration::from_secs(10), sent).await.expect("no hang");
        assert_eq!(answer.expect("no failure").status(), 200);
    }
}

/// Updates a registration, again where a busy server has not answered within the lease.
pub(crate) async fn update(
    handle: &RegistrationHandle,
    change: impl Fn(Instance) -> Instance + Copy + Send + 'static,
) {
    let deadline = Instant::now() + BOUND;
    while let Err(error) = handle.update(change).await {
        assert!(error.is_transient() && Instant::now() < deadline, "{error:?}");
    }
}

/// The entry as the server has it, in XML, which it sends by default.
pub(crate) async fn entry(server: &real::Eureka, app: &str, id: &str) -> String {
    let target = format!("/eureka/apps/{}/{}", app.to_uppercase(), encoded(id));
    let answer = request(server.address(), "GET", &target, "").await.expect("a well server");
    if answer.status == 200 { answer.body } else { String::new() }
}

/// Waits until the server has an entry that is `wanted`.
pub(crate) async fn entry_that(
    server: &real::Eureka,
    app: &str,
    id: &str,
    wanted: impl Fn(&str) -> bool,
) -> String {
    let deadline = Instant::now() + BOUND;
    loop {
        let xml = entry(server, app, id).await;
        if wanted(&xml) {
            return xml;
        }
        assert!(Instant::now() < deadline, "{server:?} has {xml:?}");
        sleep(LEASE / 30).await;
    }
}

/// Sends a request to the entry of an instance, as an operator does.
pub(crate) async fn operate(server: SocketAddr, method: &str, app: &str, id: &str, rest: &str) {
    let target = format!("/eureka/apps/{}/{}{rest}", app.to_uppercase(), encoded(id));
    let answer = request(server, method, &target, "").await.expect("a well server");
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Registers an entry as another program does, with a lease of a second.
///
/// Its address refuses connections.
pub(crate) async fn post(server: &real::Eureka, app: &str, id: &str, status: &str) {
    post_with(server, app, id, status, PORT, 1).await;
}

/// As [`post`], with this port as JSON, and a lease of so many seconds.
pub(crate) async fn post_with(
    server: &real::Eureka,
    app: &str,
    id: &str,
    status: &str,
    port: &str,
    lease: u32,
) {
    let body = format!(
        r#"{{"instance":{{"instanceId":"{id}","app":"{app}","hostName":"127.0.0.1",
        "ipAddr":"127.0.0.1","status":"{status}","port":{port},
        "dataCenterInfo":{{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
        "name":"MyOwn"}},"leaseInfo":{{"renewalIntervalInSecs":1,"durationInSecs":{lease}}}}}}}"#
    );
    let mut stream = TcpStream::connect(server.address()).await.expect("it listens");
    let request = format!(
        "POST /eureka/apps/{app} HTTP/1.0\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

fn encoded(id: &str) -> String {
    id.replace(' ', "%20")
}

/// Nothing listens there.
pub(crate) const PORT: &str = r#"{"$":9,"@enabled":"true"}"#;
/// In seconds, for entries that are not renewed.
pub(crate) const LONG_LEASE: u32 = 3600;
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// For servers that start on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(500);
