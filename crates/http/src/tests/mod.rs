//! Everything here runs over real sockets on loopback.

mod age;
mod bounds;
mod cold;
mod connectors;
mod dials;
mod failures;
mod faults;
mod health;
pub(crate) mod http2;
mod lifetime;
mod limits;
mod reuse;
pub(crate) mod server;
mod silent_senders;
mod time_limits;
#[cfg(feature = "tls")]
mod tls;
mod uploads;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tower::{Service, ServiceExt};
use tower_sd_balance::Instance;

use crate::{HttpEndpoint, HttpError, HttpFactory, InFlightBody, ResponseBody};
use server::Server;

type Sent = Full<Bytes>;

fn endpoint(server: &Server) -> HttpEndpoint<Sent> {
    endpoint_of(HttpFactory::new(), server)
}

/// The endpoint keeps what it needs of the factory.
#[expect(clippy::needless_pass_by_value, reason = "shows that the factory may go")]
fn endpoint_of(factory: HttpFactory<Sent>, server: &Server) -> HttpEndpoint<Sent> {
    factory.endpoint(&server.instance()).expect("an address on loopback")
}

fn get(path: &str) -> Request<Sent> {
    Request::get(format!("http://arithmetic{path}")).body(Sent::default()).expect("a valid request")
}

async fn send(
    endpoint: &HttpEndpoint<Sent>,
    request: Request<Sent>,
) -> Result<Response<InFlightBody<ResponseBody<Sent>>>, HttpError> {
    endpoint.clone().ready().await?.call(request).await
}

/// The status and the whole body.
async fn fetch(endpoint: &HttpEndpoint<Sent>, request: Request<Sent>) -> Result<Bytes, HttpError> {
    let body = send(endpoint, request).await?.into_body();
    Ok(body.collect().await?.to_bytes())
}

/// A listener whose backlog is full: the kernel drops further SYNs, as a host that vanished does.
pub(crate) struct BlackHole {
    listener: TcpListener,
    _backlog: JoinSet<std::io::Result<TcpStream>>,
}

impl BlackHole {
    pub(crate) async fn open() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("loopback");
        let listener = socket.listen(1).expect("listens");
        let address = listener.local_addr().expect("bound");
        let mut backlog = JoinSet::new();
        for _ in 0..8 {
            backlog.spawn(TcpStream::connect(address));
        }
        sleep(Duration::from_millis(200)).await;
        Self { listener, _backlog: backlog }
    }

    pub(crate) fn instance(&self) -> Instance {
        let address = self.listener.local_addr().expect("bound");
        Instance::new(address.ip().to_string(), address.port())
    }
}
