use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::Readiness;

/// Has HTTP/1 connections closed with their next answer, from the moment on that the server is not ready any more.
///
/// A server that closes idle connections may cross a request on its way, of which nobody can say then whether it was read. A
/// client that was told has the connection closed by itself; by the time of the drain few are left. HTTP/2 has GOAWAY for
/// that. [`serve_axum`](crate::serve_axum) has this layer.
#[derive(Clone, Debug)]
pub struct CloseLayer(Readiness);

/// What [`CloseLayer`] makes.
#[derive(Clone, Debug)]
pub struct Close<S> {
    inner: S,
    readiness: Readiness,
}

/// The answer of a [`Close`].
#[derive(Debug)]
#[pin_project]
pub struct CloseFuture<F> {
    #[pin]
    inner: F,
    /// `None`: not of HTTP/1.
    readiness: Option<Readiness>,
}

impl CloseLayer {
    /// For the server whose readiness this is.
    #[must_use]
    pub fn new(readiness: &Readiness) -> Self {
        Self(readiness.clone())
    }
}

impl<S> Layer<S> for CloseLayer {
    type Service = Close<S>;

    fn layer(&self, inner: S) -> Close<S> {
        Close { inner, readiness: self.0.clone() }
    }
}

impl<S, B, C> Service<Request<B>> for Close<S>
where
    S: Service<Request<B>, Response = Response<C>>,
{
    type Response = Response<C>;
    type Error = S::Error;
    type Future = CloseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The header is forbidden in HTTP/2.
        let readiness = (request.version() <= Version::HTTP_11).then(|| self.readiness.clone());
        CloseFuture { inner: self.inner.call(request), readiness }
    }
}

impl<F, C, E> Future for CloseFuture<F>
where
    F: Future<Output = Result<Response<C>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut answer = ready!(this.inner.poll(context));
        let closes = this.readiness.as_ref().is_some_and(Readiness::is_draining);
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
