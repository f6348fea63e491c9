//! What the whole stack costs a call.
//!
//! Retry, Balance and HttpFactory run beside hyper-util's legacy client, over the same number
//! of keep-alive connections to the same server, with the same keep-alive pings, in turn.
//!
//! Fails when throughput falls below 0.95 of the peer's, or the median latency exceeds 1.05 of it.
//! Argument: the number of rounds, 15 if not given.

use std::{convert::Infallible, net::SocketAddr, sync::mpsc, thread, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{net::TcpListener, runtime, task::JoinSet, time::Instant};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd_balance::{
    Balance, BalanceLayer, BoxError, Endpointer, FixedInstancer, Instance, Retry, RetryLayer,
    RetryPolicy, RoundRobin,
};
use tower_sd_benches::{measure::median, results::Results};
use tower_sd_http::{HttpEndpoint, HttpFactory, HttpProtocol, HttpVersion};

fn main() -> Result<(), BoxError> {
    let rounds = std::env::args().nth(1).map_or(Ok(15), |n| n.parse())?;
    let client = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut results = Results::new("calls")?;
    let mut missed = Vec::new();
    for case in CASES {
        let server = serve(case.protocol)?;
        let measured = client.block_on(compare(case, server, rounds))?;
        for (metric, ours, peer) in measured {
            let ratio = ours / peer;
            results.compare(case.name, metric, ours, ("hyper_util", peer))?;
            let kept = match metric {
                "throughput" => ratio >= 0.95,
                _ => ratio <= 1.05,
            };
            if !kept {
                missed.push(format!("{} {metric}: ×{ratio:.3}", case.name));
            }
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(missed.join(", ").into()) }
}

struct Case {
    name: &'static str,
    protocol: HttpVersion,
    /// Callers, each with one call in flight; in HTTP/1.1 each has a connection.
    n_callers: usize,
}

const CASES: &[Case] = &[
    Case { name: "http1_1", protocol: HttpVersion::Http1, n_callers: 1 },
    Case { name: "http1_16", protocol: HttpVersion::Http1, n_callers: 16 },
    Case { name: "http2_1", protocol: HttpVersion::Http2, n_callers: 1 },
    Case { name: "http2_16", protocol: HttpVersion::Http2, n_callers: 16 },
];

/// Each metric of a case, with our median and the peer's.
async fn compare(
    case: &Case,
    server: SocketAddr,
    rounds: usize,
) -> Result<[(&'static str, f64, f64); 2], BoxError> {
    let (ours, peer) = (ours(server, case.protocol), peer(case.protocol));
    let mut throughputs = [Vec::new(), Vec::new()];
    let mut latencies = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        let uri = format!("http://{server}/calculate/Add/1/2");
        let by_peer = async |n| drive(case.n_callers, n, Peer(peer.clone(), uri.clone())).await;
        let by_us = async |n| drive(case.n_callers, n, Ours(ours.clone())).await;
        // The first of a round is the second in the next.
        let (us, them) = if round % 2 == 0 {
            let us = by_us(N_CALLS).await?;
            (us, by_peer(N_CALLS).await?)
        } else {
            let them = by_peer(N_CALLS).await?;
            (by_us(N_CALLS).await?, them)
        };
        // The first round pays for what happens once.
        if round > 0 {
            for (i, (throughput, p50)) in [us, them].into_iter().enumerate() {
                throughputs[i].push(throughput);
                latencies[i].push(p50);
            }
        }
    }
    let [our_throughput, peer_throughput] = throughputs.map(median);
    let [our_p50, peer_p50] = latencies.map(median);
    Ok([("throughput", our_throughput, peer_throughput), ("p50", our_p50, peer_p50)])
}

/// Calls per second, and the median latency in microseconds.
async fn drive<C: Caller>(
    n_callers: usize,
    n_calls: usize,
    caller: C,
) -> Result<(f64, f64), BoxError> {
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..n_callers {
        let mut caller = caller.clone();
        callers.spawn(async move {
            let mut latencies = Vec::with_capacity(n_calls / n_callers);
            for _ in 0..n_calls / n_callers {
                let started = std::time::Instant::now();
                let body = caller.call().await?;
                assert_eq!(body, ANSWER);
                latencies.push(started.elapsed().as_secs_f64() * 1e6);
            }
            Ok::<_, BoxError>(latencies)
        });
    }
    let mut latencies = Vec::with_capacity(n_calls);
    while let Some(ended) = callers.join_next().await {
        latencies.extend(ended??);
    }
    let throughput = latencies.len() as f64 / started.elapsed().as_secs_f64();
    Ok((throughput, median(latencies)))
}

trait Caller: Clone + Send + 'static {
    fn call(&mut self) -> impl Future<Output = Result<Bytes, BoxError>> + Send;
}

#[derive(Clone)]
struct Ours(Retry<Balance<HttpEndpoint<Full<Bytes>>>, HttpProtocol>);

#[derive(Clone)]
struct Peer(Client<HttpConnector, Full<Bytes>>, String);

impl Caller for Ours {
    async fn call(&mut self) -> Result<Bytes, BoxError> {
        let request =
            Request::get("http://arithmetic/calculate/Add/1/2").body(Full::<Bytes>::default())?;
        let response = self.0.ready().await?.call(request).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }
}

impl Caller for Peer {
    async fn call(&mut self) -> Result<Bytes, BoxError> {
        let request = Request::get(self.1.as_str()).body(Full::<Bytes>::default())?;
        let response = self.0.request(request).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }
}

fn ours(
    server: SocketAddr,
    protocol: HttpVersion,
) -> Retry<Balance<HttpEndpoint<Full<Bytes>>>, HttpProtocol> {
    let instance = Instance::new(server.ip().to_string(), server.port());
    let instancer = FixedInstancer::new([instance]);
    ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new().protocol(HttpProtocol::new())))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(Endpointer::new(&instancer, HttpFactory::new().version(protocol)))
}

fn peer(protocol: HttpVersion) -> Client<HttpConnector, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    // As in ours, a peer that vanished is noticed: hyper keeps account of every frame for that.
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_only(protocol == HttpVersion::Http2)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_keep_alive_timeout(Duration::from_secs(10))
        .build(connector)
}

/// A server on a thread of its own, until the program ends.
fn serve(protocol: HttpVersion) -> Result<SocketAddr, BoxError> {
    let (sender, receiver) = mpsc::channel();
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
            sender.send(listener.local_addr().expect("bound")).expect("waited for");
            let mut peers = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                stream.set_nodelay(true).expect("a socket");
                let io = TokioIo::new(stream);
                if protocol == HttpVersion::Http2 {
                    let builder = conn::http2::Builder::new(TokioExecutor::new());
                    peers.spawn(builder.serve_connection(io, service_fn(answer)));
                } else {
                    peers.spawn(async {
                        let builder = conn::http1::Builder::new();
                        builder.serve_connection(io, service_fn(answer)).await
                    });
                }
            }
        });
    });
    Ok(receiver.recv_timeout(Duration::from_secs(5))?)
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from(ANSWER)))
}

const ANSWER: &str = r#"{"v":3}"#;
/// Some tenths of a second: long enough to be measured, short enough to be disturbed as the other
/// is.
const N_CALLS: usize = 8_000;
