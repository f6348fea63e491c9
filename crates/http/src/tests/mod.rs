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

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceExt};
use tower_sd_balance::Instance;
use tower_sd_testkit::loopback::refusing;

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

/// Its port refuses connections.
pub(crate) fn dead() -> Instance {
    refusing().expect("loopback")
}
