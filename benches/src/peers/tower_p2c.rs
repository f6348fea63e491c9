//! tower's own balancer, which is neither `Clone` nor shared.
//!
//! For two threads it needs a lock, or a `Buffer`.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tower::{
    Service,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma, PendingRequests},
};

use crate::noop::Noop;

type Pending = Balance<ServiceList<Vec<PendingRequests<Noop>>>, ()>;
type Ewma = Balance<ServiceList<Vec<PeakEwma<Noop>>>, ()>;

pub fn pending(n: usize) -> Pending {
    let one = |i| PendingRequests::new(Noop(i), CompleteOnResponse::default());
    Balance::new(ServiceList::new(numbers(n).map(one).collect::<Vec<_>>()))
}

pub fn peak_ewma(n: usize) -> Ewma {
    let (default_rtt, decay_ns) = (Duration::from_millis(30), 10e9);
    let one = |i| PeakEwma::new(Noop(i), default_rtt, decay_ns, CompleteOnResponse::default());
    Balance::new(ServiceList::new(numbers(n).map(one).collect::<Vec<_>>()))
}

/// As tonic has it: a worker owns the balancer. Needs a runtime.
pub fn buffer(n: usize) -> Buffer<(), <Pending as Service<()>>::Future> {
    Buffer::new(pending(n), 1024)
}

/// A balancer behind a lock, for two threads.
pub struct Locked<S>(Arc<Mutex<S>>);

impl<S> Locked<S> {
    pub fn new(service: S) -> Self {
        Self(Arc::new(Mutex::new(service)))
    }
}

impl<S> Clone for Locked<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Service<()>> Service<()> for Locked<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ()) -> S::Future {
        let mut service = self.0.lock().expect("not poisoned");
        let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(ready, Poll::Ready(Ok(()))), "not ready");
        service.call(request)
    }
}

fn numbers(n: usize) -> impl Iterator<Item = u32> {
    0..u32::try_from(n).expect("few")
}
