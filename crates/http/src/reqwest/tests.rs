//! Over real sockets, with a client that has no settings of its own.

mod instances;
mod outcomes;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ::reqwest::{Client, Request, Response, dns::Resolve, redirect::Policy};
use tokio::time::timeout;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd_balance::{
    Balance, BalanceLayer, BoxError, Endpointer, Factory, FixedInstancer, Instance, InstanceStatus,
    Retry, RetryLayer, RetryPolicy, RoundRobin,
};

use super::{InstanceResolver, ReqwestClient, ReqwestEndpoint, ReqwestFactory};
use crate::{
    HttpError, HttpErrorKind, HttpProtocol,
    tests::{dead, server::Server},
};

/// reqwest needs a TLS provider even where no TLS is used.
fn with_tls(client: ::reqwest::ClientBuilder) -> ::reqwest::ClientBuilder {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    client.tls_backend_preconfigured(tls)
}

fn client() -> ::reqwest::ClientBuilder {
    with_tls(Client::builder()).no_proxy().redirect(Policy::none())
}

fn factory(client: &Client) -> ReqwestFactory {
    ReqwestFactory::new(client.clone()).without_redirects()
}

fn balanced(
    client: &Client,
    instances: impl IntoIterator<Item = Instance>,
) -> (Endpointer<ReqwestEndpoint>, Retry<Balance<ReqwestEndpoint>, HttpProtocol>) {
    let endpointer = Endpointer::new(&FixedInstancer::new(instances), factory(client));
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new().protocol(HttpProtocol::new())))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(endpointer.clone());
    (endpointer, service)
}

async fn send<S>(service: &mut S, request: Request) -> Result<Response, BoxError>
where
    S: Service<Request, Response = Response, Error = BoxError>,
{
    service.ready().await?.call(request).await
}

#[tokio::test]
async fn requests_go_round_and_the_host_stays_the_services() {
    let servers = [Server::echo().await, Server::echo().await];
    let client = client().build().expect("a client");
    let (_endpointer, mut service) = balanced(&client, servers.iter().map(Server::instance));
    for _ in 0..10 {
        let request = client.get("http://arithmetic:80/a?b=c").build().expect("a request");
        let response = send(&mut service, request).await.expect("answers");
        assert_eq!(response.url().query(), Some("b=c"));
        let head = response.text().await.expect("whole");
        assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nhost: arithmetic\r\n"), "{head}");
    }
    assert_eq!(servers.map(|server| server.n_accepted()), [1, 1]);
}

#[tokio::test]
async fn request_refused_by_a_dead_instance_is_sent_to_another() {
    let server = Server::echo().await;
    let client = client().build().expect("a client");
    let (_endpointer, mut service) = balanced(&client, [dead(), server.instance()]);
    for _ in 0..10 {
        let request = client.post("http://arithmetic/").body("order").build().expect("a request");
        send(&mut service, request).await.expect("answers");
    }
}

#[tokio::test]
async fn request_that_may_have_been_sent_is_repeated_if_idempotent() {
    let client = client().build().expect("a client");
    let dies = || Server::start(async |mut peer| drop(peer.request().await));
    for (method, n_sent) in [("GET", 2), ("POST", 1)] {
        let servers = [dies().await, dies().await];
        let (_endpointer, mut service) = balanced(&client, servers.iter().map(Server::instance));
        let method = method.parse().expect("a method");
        let request = client.request(method, "http://arithmetic/").build().expect("a request");
        let error = send(&mut service, request).await.expect_err("dies");
        let cause = HttpError::find(&*error).expect("ours");
        assert_eq!(cause.kind(), HttpErrorKind::Io);
        let n_seen: usize = servers.iter().map(Server::n_accepted).sum();
        assert!(n_seen >= n_sent && (n_sent > 1 || n_seen == 1), "{n_seen}");
    }
}

#[tokio::test]
async fn response_keeps_its_endpoint_busy_until_its_body_has_ended() {
    let server = Server::start(async |mut peer| {
        peer.request().await;
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha").await;
        peer.closed().await;
    })
    .await;
    let client = client().build().expect("a client");
    let (endpointer, mut service) = balanced(&client, [server.instance()]);
    let in_flight = || endpointer.report().endpoints[0].in_flight;
    let request = client.get("http://arithmetic/").build().expect("a request");
    let response = send(&mut service, request).await.expect("begins");
    assert_eq!(in_flight(), 1);
    drop(response);
    assert_eq!(in_flight(), 0);
}

#[tokio::test]
async fn https_is_not_sent_in_the_clear() {
    let client = client().build().expect("a client");
    let instance = Instance::new("127.0.0.1", 1).with_scheme("http");
    let mut endpoint = ReqwestFactory::new(client.clone()).make(instance).await.expect("http");
    let request = client.get("https://arithmetic/").build().expect("a request");
    let error = endpoint.ready().await.expect("always").call(request).await.expect_err("refused");
    assert_eq!(error.kind(), HttpErrorKind::TlsRequired);
    let shouting = Instance::new("127.0.0.1", 1).with_scheme("HTTPS");
    ReqwestFactory::new(client.clone()).make(shouting).await.expect("any case");
    let unknown = Instance::new("127.0.0.1", 1).with_scheme("ftp");
    ReqwestFactory::new(client).make(unknown).await.expect_err("no HTTP");
}

#[tokio::test]
async fn host_with_a_path_or_a_user_is_refused() {
    let factory = ReqwestFactory::new(client().build().expect("a client"));
    for host in ["unix:/run/orders.sock", "127.0.0.1/else", "user@127.0.0.1", "a?b", "a#b"] {
        factory.make(Instance::new(host, 80)).await.expect_err(host);
    }
    factory.make(Instance::new("::1", 80)).await.expect("an address");
}

/// Each has a client of its own, and servers see the name of the service.
#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_are_instances_on_demand() {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
        task::JoinSet,
    };

    let (folder, mut tasks) = (tempfile::tempdir().expect("a folder"), JoinSet::new());
    let instances = ["one", "two"].map(|name| {
        let path = folder.path().join(name);
        let listener = UnixListener::bind(&path).expect("a socket");
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            loop {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    assert_ne!(stream.read_buf(&mut head).await.expect("readable"), 0);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                assert!(head.contains("\r\nhost: orders\r\n"), "{head}");
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{name}");
                stream.write_all(answer.as_bytes()).await.expect("writable");
            }
        });
        Instance::new(format!("unix:{}", path.display()), 0)
    });
    let factory = ReqwestFactory::build(client())
        .expect("a client")
        .unix_sockets(|path| client().unix_socket(path).build());
    let http = factory.client().clone();
    for scheme in ["ftp", "https"] {
        let instance = instances[0].clone().with_scheme(scheme);
        assert_eq!(factory.make(instance).await.is_ok(), scheme == "https");
    }
    let endpointer = Endpointer::new(&FixedInstancer::new(instances), factory);
    let layer = BalanceLayer::new(RoundRobin::new());
    let mut service = ServiceBuilder::new().layer(layer).service(endpointer);
    let mut answers = Vec::new();
    for _ in 0..4 {
        let request = http.get("http://orders/").build().expect("a request");
        let response = send(&mut service, request).await.expect("answers");
        answers.push(response.text().await.expect("whole"));
    }
    answers.sort_unstable();
    assert_eq!(answers, ["one", "one", "two", "two"]);
}

/// A URL makes an address of each of them, which no resolver sees.
#[tokio::test]
async fn host_that_becomes_an_address_is_refused() {
    let factory = ReqwestFactory::new(client().build().expect("a client"));
    for host in ["１６９.２５４.１６９.２５４", "2852039166", "0xa9fea9fe", "0ｘa9fea9fe", "[::1]"]
    {
        factory.make(Instance::new(host, 80)).await.expect_err(host);
    }
    for host in ["bücher.example", "ａ.example", "x1"] {
        factory.make(Instance::new(host, 80)).await.expect(host);
    }
}

#[tokio::test]
async fn name_resolves_to_instances_with_ports_and_fails_over() {
    let server = Server::echo().await;
    let instancer = FixedInstancer::new([dead(), server.instance(), dead()]);
    let resolver = InstanceResolver::new().service("Arithmetic", &instancer);
    let client = client()
        .dns_resolver(Arc::new(resolver))
        .pool_max_idle_per_host(0)
        .build()
        .expect("a client");
    for _ in 0..20 {
        let response = client.get("http://arithmetic/").send().await.expect("answers");
        let head = response.text().await.expect("whole");
        assert!(head.contains("\r\nhost: arithmetic\r\n"), "{head}");
    }
}

#[tokio::test]
async fn other_names_are_the_systems_and_an_empty_service_is_an_error() {
    let server = Server::echo().await;
    let nobody = FixedInstancer::new([]);
    let resolver = InstanceResolver::new().service("arithmetic", &nobody);
    let client = client().dns_resolver(Arc::new(resolver)).build().expect("a client");
    let port = server.instance().port();
    client.get(format!("http://localhost:{port}/")).send().await.expect("answers");
    let outcome = timeout(Duration::from_secs(5), client.get("http://arithmetic/").send()).await;
    let error = outcome.expect("in time").expect_err("no instance");
    let first: &(dyn std::error::Error + 'static) = &error;
    let chain = std::iter::successors(Some(first), |error| (*error).source());
    let last = chain.last().expect("at least itself").to_string();
    assert_eq!(last, "no instances of arithmetic");
}

/// Answers each POST with a redirect to a name without an address.
async fn redirecting(n_posts: &Arc<AtomicUsize>) -> Server {
    let n_posts = Arc::clone(n_posts);
    Server::start(move |mut peer| {
        let n_posts = Arc::clone(&n_posts);
        async move {
            while let Some(head) = peer.request().await {
                n_posts.fetch_add(usize::from(head.starts_with("POST")), Ordering::SeqCst);
                let answer = "HTTP/1.1 303 See Other\r\nlocation: http://shop.invalid/orders/1\r\n";
                peer.write(&format!("{answer}content-length: 0\r\n\r\n")).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn post_answered_by_a_redirect_to_a_dead_place_is_sent_once() {
    let n_posts = Arc::<AtomicUsize>::default();
    let server = redirecting(&n_posts).await;
    let follows = client().redirect(Policy::limited(3)).build().expect("a client");
    let follows = ReqwestFactory::new(follows);
    let stays = ReqwestFactory::build(client().redirect(Policy::limited(3))).expect("a client");
    for (factory, status) in [(follows, None), (stays, Some(303))] {
        n_posts.store(0, Ordering::SeqCst);
        let client = factory.client().clone();
        let endpointer = Endpointer::new(&FixedInstancer::new([server.instance()]), factory);
        let mut service = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryPolicy::new().protocol(HttpProtocol::new())))
            .layer(BalanceLayer::new(RoundRobin::new()))
            .service(endpointer);
        let request = client.post("http://shop/orders").body("order").build().expect("a request");
        let outcome = send(&mut service, request).await;
        assert_eq!(outcome.ok().map(|response| response.status().as_u16()), status);
        assert_eq!(n_posts.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn name_is_resolved_to_instances_that_want_requests_only() {
    let instancer = FixedInstancer::new([
        Instance::new("127.0.0.1", 1).with_status(InstanceStatus::Critical),
        Instance::new("127.0.0.2", 2).with_weight(0),
        Instance::new("127.0.0.3", 3),
    ]);
    let resolver = InstanceResolver::new().service("arithmetic", &instancer);
    let found = resolver.resolve("arithmetic".parse().expect("a name")).await.expect("found");
    let found: Vec<_> = found.map(|address| address.to_string()).collect();
    assert_eq!(found, ["127.0.0.3:3"]);
}

#[tokio::test]
async fn client_balances_retries_and_names_the_service_in_errors() {
    let dies = Server::start(async |mut peer| drop(peer.request().await)).await;
    let polite = Server::echo().await;
    let instances = [dead(), dies.instance(), polite.instance()];
    let orders = ReqwestClient::builder(FixedInstancer::new(instances))
        .client(|_| client())
        .build()
        .expect("a client");
    for _ in 0..6 {
        let request = orders.client().get("http://user:secret@orders:80/a");
        let head = orders.send(request).await.expect("answered").text().await.expect("whole");
        assert!(head.starts_with("GET /a HTTP/1.1\r\n"), "{head}");
    }
    let orders = ReqwestClient::builder(FixedInstancer::new([dies.instance()]))
        .client(|_| client())
        .build()
        .expect("a client");
    let error = orders.send(orders.client().get("http://u:secret@orders/")).await;
    let error = error.expect_err("dies");
    assert_eq!((error.service(), error.attempts().len()), (Some("orders"), 3));
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn client_sends_post_once_and_returns_the_redirect() {
    let n_posts = Arc::<AtomicUsize>::default();
    let server = redirecting(&n_posts).await;
    let orders = ReqwestClient::builder(FixedInstancer::new([server.instance()]))
        .client(|_| client().redirect(Policy::limited(3)))
        .build()
        .expect("a client");
    let response = orders.send(orders.client().post("http://shop/orders").body("order")).await;
    assert_eq!(response.expect("answered").status().as_u16(), 303);
    assert_eq!(n_posts.load(Ordering::SeqCst), 1);
    orders.wait_until_ready(Duration::from_secs(1)).await.expect("ready");
}
