//! HTTP endpoints under `Balance` and `Retry`, over real sockets.

#![expect(
    clippy::future_not_send,
    reason = "the tests' generic helpers run where they are awaited"
)]

mod bodies;
mod churn;
mod dying;
mod fleet;
mod judging;
mod leases;
mod minute;
mod processes;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd_balance::{
    Balance, BalanceLayer, BoxError, Endpointer, FixedInstancer, Instance, Retry, RetryLayer,
    RetryPolicy, RoundRobin,
};
use tower_sd_http::{HttpEndpoint, HttpFactory, HttpProtocol, InFlightBody, ResponseBody};
use tower_sd_testkit::{
    loopback::refusing,
    script::{Reply, Script},
};

/// What an application would store.
type Client<B> = Retry<Balance<HttpEndpoint<B>>, HttpProtocol>;
/// A request body, complete in memory.
type Sent = Full<Bytes>;
type Answer<B> = Response<InFlightBody<ResponseBody<B>>>;

async fn polite() -> Script {
    Script::answering(|_| Reply::new(200).body("ok")).await.expect("loopback")
}

/// Reads each request, and closes the connection instead of answering.
async fn dying() -> Script {
    Script::answering(|_| Reply::closed()).await.expect("loopback")
}

fn instance(script: &Script) -> Instance {
    Instance::new(script.address().ip().to_string(), script.address().port())
}

/// Its port refuses connections.
fn dead() -> Instance {
    refusing().expect("loopback")
}

fn endpointer<B>(instances: impl IntoIterator<Item = Instance>) -> Endpointer<HttpEndpoint<B>>
where
    B: Body + Send + 'static,
{
    Endpointer::new(&FixedInstancer::new(instances), HttpFactory::new())
}

fn balanced<B>(endpointer: &Endpointer<HttpEndpoint<B>>) -> Balance<HttpEndpoint<B>>
where
    B: Body + Send + 'static,
{
    ServiceBuilder::new().layer(BalanceLayer::new(RoundRobin::new())).service(endpointer.clone())
}

fn retried<B>(endpointer: &Endpointer<HttpEndpoint<B>>, replay: HttpProtocol) -> Client<B>
where
    B: Body + Send + 'static,
{
    let policy = RetryPolicy::new().max_attempts(2).protocol(replay);
    ServiceBuilder::new().layer(RetryLayer::new(policy)).service(balanced(endpointer))
}

fn get() -> Request<Sent> {
    Request::get("http://arithmetic/").body(Sent::default()).expect("a valid request")
}

fn post<B>(body: B) -> Request<B> {
    Request::post("http://arithmetic/").body(body).expect("a valid request")
}

async fn whole<B: Send + 'static>(answer: Answer<B>) -> Result<Bytes, BoxError> {
    Ok(answer.into_body().collect().await?.to_bytes())
}

/// Sends, and reads the answer to its end.
async fn fetch<S, B>(client: &S, request: Request<B>) -> Result<Bytes, BoxError>
where
    S: Service<Request<B>, Response = Answer<B>, Error = BoxError> + Clone,
    B: Send + 'static,
{
    whole(client.clone().ready().await?.call(request).await?).await
}
