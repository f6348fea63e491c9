//! The service as its callers see it: discovered, balanced, retried.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use tower_sd::http::{self as balanced, Body, HttpProtocol};
use tower_sd::{BoxError, Instancer, balance::RoundRobin, retry::RetryPolicy};

#[cfg(feature = "grpc")]
use crate::grpc;
use crate::{
    cli::ClientArgs,
    service::{self, Answer},
};

/// A client of the service. `Clone` is cheap, and all clones share the connections.
#[derive(Clone, Debug)]
pub(crate) struct Client(balanced::Client);

/// Runs the `client` command.
#[expect(clippy::print_stdout, reason = "the result is what the command is for")]
pub(crate) async fn main(args: &ClientArgs) -> Result<(), BoxError> {
    let registry = tower_sd::open(&args.registry)?;
    let service = |name: &'static str| args.service.as_deref().unwrap_or(name);
    #[cfg(feature = "grpc")]
    if args.grpc {
        let instancer = registry.instancer(service(grpc::NAME))?;
        let client = grpc::Client::new(instancer, policy());
        println!("{}", client.calculate(&args.operation, &args.a, &args.b).await?);
        return Ok(());
    }
    let instancer = registry.instancer(service(service::NAME))?;
    let client = Client::new(instancer, policy());
    let result = client.calculate(&args.operation, &args.a, &args.b).await?;
    println!("{result}");
    Ok(())
}

impl Client {
    /// Follows the servers, and sends each request by `policy`, at best each time to another
    /// server.
    pub(crate) fn new(instancer: impl Instancer, policy: RetryPolicy) -> Self {
        let client = balanced::Client::builder(instancer)
            // In turn, so that the demo shows equal shares.
            .balancer(RoundRobin::new())
            .retry(|_| policy.protocol(HttpProtocol::new()));
        Self(client.build())
    }

    /// The client itself, for its state.
    pub(crate) fn inner(&self) -> &balanced::Client {
        &self.0
    }

    pub(crate) async fn calculate(
        &self,
        operation: &str,
        a: &str,
        b: &str,
    ) -> Result<i64, BoxError> {
        let path = format!("/calculate/{operation}/{a}/{b}");
        let response = self.send(&path).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        match serde_json::from_slice(&body) {
            Ok(Answer { result: Some(result), .. }) => Ok(result),
            Ok(Answer { error: Some(error), .. }) => Err(error.into()),
            _ => Err(format!("the server answered {status} and no result").into()),
        }
    }

    /// The answer of one of the servers, whatever it is.
    pub(crate) async fn send(&self, path: &str) -> Result<Response<Body>, BoxError> {
        let uri = format!("http://{}{path}", service::NAME);
        Ok(self.0.request(Request::post(uri).body(String::new())?).await?)
    }
}

/// A calculation changes nothing at the server: repeating one does no harm, although it is a POST.
///
/// A server that hangs costs 2 s, and no request takes more than 7 s.
pub(crate) fn policy() -> RetryPolicy {
    RetryPolicy::new()
        .idempotent()
        .per_try_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(7))
}
