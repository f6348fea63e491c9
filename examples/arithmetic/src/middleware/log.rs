use std::task::{Context, Poll};

use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service};

/// A line per request: its path, its result, how long it took. Seen with
/// `RUST_LOG=arithmetic=info`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogLayer;

/// What [`LogLayer`] makes.
#[derive(Clone, Debug)]
pub(crate) struct Log<S>(S);

impl<S> Layer<S> for LogLayer {
    type Service = Log<S>;

    fn layer(&self, inner: S) -> Log<S> {
        Log(inner)
    }
}

impl<S, B, C> Service<Request<B>> for Log<S>
where
    S: Service<Request<B>, Response = Response<C>, Future: Send + 'static>,
{
    type Response = Response<C>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<C>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let begun = Instant::now();
        let answer = self.0.call(request);
        let log = move |answer: &Result<Response<C>, S::Error>| {
            let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            let took = begun.elapsed();
            tracing::info!(%method, path, status, ?took, "request");
        };
        answer.inspect(log).boxed()
    }
}
