//! The inner service of every balancer here.
//!
//! It does nothing, so that what is left is the balancer.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use tower::Service;

/// Answers with its number.
#[derive(Clone, Debug)]
pub struct Noop(pub u32);

impl Service<()> for Noop {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}

/// One request: readiness, call, response.
///
/// # Panics
///
/// When the service is not ready immediately, or fails.
#[inline]
pub fn request<S: Service<(), Response = u32>>(service: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))), "not ready");
    match pin!(service.call(())).poll(&mut cx) {
        Poll::Ready(Ok(answer)) => drop(black_box(answer)),
        _ => panic!("no answer"),
    }
}
