use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::timeout_at;
use tonic::{Status, body::Body};
use tower_sd_balance::{BoxError, InFlight};
use tower_sd_http::HttpEndpoint;
use tower_service::Service;

use crate::{
    GrpcBody, InFlightBody,
    code::{self, Trailers},
    deadline::Deadline,
    health::Health,
    hold::Call,
    layer::Unary,
};

/// One instance over gRPC, with a connection of its own.
///
/// `poll_ready` connects, so a dead instance is noticed before it is given a call. Takes any
/// request body, and so stands below a `Retry` as it stands alone.
#[derive(Clone)]
pub struct GrpcEndpoint {
    http: HttpEndpoint<Body>,
    health: Option<Arc<Health>>,
}

/// The answer of a [`GrpcEndpoint`], to come. Dropped, it cancels the call.
#[must_use = "futures do nothing unless polled"]
pub struct GrpcResponse(Pin<Box<dyn Future<Output = Answer> + Send>>);

type Answer = Result<Response<InFlightBody<GrpcBody>>, Status>;

impl GrpcEndpoint {
    pub(crate) fn new(http: HttpEndpoint<Body>, health: Option<Arc<Health>>) -> Self {
        Self { http, health }
    }
}

impl<B> Service<Request<B>> for GrpcEndpoint
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<InFlightBody<GrpcBody>>;
    type Error = Status;
    type Future = GrpcResponse;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if let Some(health) = &self.health {
            health.check()?;
        }
        self.http.poll_ready(cx).map_err(code::of_exchange)
    }

    fn call(&mut self, mut request: Request<B>) -> GrpcResponse {
        let lease = InFlight::take();
        let deadline = Deadline::of(&request);
        let (at, caller) = lease.as_ref().map_or((None, None), |it| (it.deadline(), it.caller()));
        let deadline = Deadline::before(deadline, at, caller);
        if let Some(deadline) = deadline {
            deadline.write(request.headers_mut());
        }
        let unary = request.extensions().get::<Unary>().is_some();
        let (parts, body) = request.into_parts();
        let (call, body) = Call::new(lease, deadline, body);
        let response = self.http.call(Request::from_parts(parts, Body::new(body)));
        let answer = async move {
            let (mut parts, rest) = response.await.map_err(code::of_exchange)?.into_parts();
            let mut body = GrpcBody::new(rest, deadline);
            if unary
                && !parts.headers.contains_key(Status::GRPC_STATUS)
                && let Some(trailers) = body.read_ahead().await?
            {
                parts.extensions.insert(Trailers(trailers));
            }
            Ok(Response::from_parts(parts, body))
        };
        GrpcResponse(match deadline {
            None => Box::pin(async move { call.answered(answer.await) }),
            Some(deadline) => Box::pin(async move {
                let answer = match timeout_at(deadline.at(), answer).await {
                    Ok(Ok(it)) if !deadline.explains(code::known_code(&it)) => Ok(it),
                    Ok(Err(it)) if !deadline.explains(Some(it.code())) => Err(it),
                    Ok(_) | Err(_) => Err(deadline.status()),
                };
                call.answered(answer)
            }),
        })
    }
}

impl Future for GrpcResponse {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for GrpcEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcEndpoint")
            .field("http", &self.http)
            .field("health", &self.health)
            .finish()
    }
}

impl fmt::Debug for GrpcResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcResponse").finish_non_exhaustive()
    }
}
