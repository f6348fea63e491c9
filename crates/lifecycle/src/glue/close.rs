use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Readiness, ReadinessState};

/// Closes HTTP/1 connections with their next response, from [`ReadinessState::Closing`](crate::ReadinessState) on.
///
/// A server that closes an idle connection may cross a request on its way, and no client can tell
/// then if it was read. A response with `Connection: close` avoids that; by the time of the drain few
/// connections are left. HTTP/2 has GOAWAY for that. [`serve_axum`](crate::serve_axum) has this layer.
#[derive(Clone, Debug)]
pub struct ConnectionCloseLayer(Readiness);

/// The service of a [`ConnectionCloseLayer`].
#[derive(Clone, Debug)]
pub struct ConnectionClose<S> {
    inner: S,
    readiness: Readiness,
}

/// The response future of a [`ConnectionClose`].
#[derive(Debug)]
#[pin_project]
pub struct ConnectionCloseFuture<F> {
    #[pin]
    inner: F,
    /// `None`: not HTTP/1.
    readiness: Option<Readiness>,
}

impl ConnectionCloseLayer {
    /// Creates the layer of the server with this readiness.
    #[must_use]
    pub fn new(readiness: &Readiness) -> Self {
        Self(readiness.clone())
    }
}

impl<S> Layer<S> for ConnectionCloseLayer {
    type Service = ConnectionClose<S>;

    fn layer(&self, inner: S) -> ConnectionClose<S> {
        ConnectionClose { inner, readiness: self.0.clone() }
    }
}

impl<S, B, C> Service<Request<B>> for ConnectionClose<S>
where
    S: Service<Request<B>, Response = Response<C>>,
{
    type Response = Response<C>;
    type Error = S::Error;
    type Future = ConnectionCloseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The header is forbidden in HTTP/2.
        let readiness = (request.version() <= Version::HTTP_11).then(|| self.readiness.clone());
        ConnectionCloseFuture { inner: self.inner.call(request), readiness }
    }
}

impl<F, C, E> Future for ConnectionCloseFuture<F>
where
    F: Future<Output = Result<Response<C>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut answer = ready!(this.inner.poll(context));
        let closes =
            this.readiness.as_ref().is_some_and(|it| it.phase() >= ReadinessState::Closing);
        if let Ok(response) = &mut answer
            && closes
            // An upgrade has its own use for the header.
            && !response.status().is_informational()
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(answer)
    }
}
