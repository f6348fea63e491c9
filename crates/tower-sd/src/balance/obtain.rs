//! The slow path: nothing to pick, or what was picked is not ready. It owns handles, and may wait.

use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    select,
    time::{Instant, sleep, timeout, timeout_at},
};
use tower_sd_core::{Backoff, BoxError, InstanceId, Stop};

use super::{NoInstances, NoInstancesReason, service::Inner};
use crate::endpointer::{Lease, Shared};

pub(super) type PollReady<S> = fn(&mut S, &mut Context<'_>) -> Poll<Result<(), BoxError>>;

/// What was picked, and what its readiness said.
pub(super) struct Candidate<S> {
    lease: Lease,
    /// The service, or why it refused.
    service: Result<S, BoxError>,
}

impl<S> Candidate<S> {
    pub(super) fn pending(service: S, lease: Lease) -> Self {
        Self { lease, service: Ok(service) }
    }

    pub(super) fn refusing(lease: Lease, error: BoxError) -> Self {
        Self { lease, service: Err(error) }
    }
}

/// A service that is ready, with its lease.
pub(super) async fn obtain<S: Clone + Send + Sync + 'static>(
    inner: Arc<Inner<S>>,
    poll_ready: PollReady<S>,
    mut first: Option<Candidate<S>>,
) -> Result<(S, Lease), BoxError> {
    let started = Instant::now();
    let mut versions = inner.shared.versions();
    let mut search = Search::default();
    loop {
        versions.borrow_and_update();
        let Some(candidate) = first.take().or_else(|| search.next(&inner)) else {
            let (known, none) = inner.shared.why_none();
            let waited = timeout_at(started + inner.wait, versions.changed());
            if known || waited.await.is_err() {
                return Err(search.give_up(none).into());
            }
            // Who has refused may have connected since.
            search.refused.clear();
            continue;
        };
        let Candidate { lease, service } = candidate;
        let error = match service {
            Ok(service) => match until_ready(service, poll_ready, inner.wait).await {
                Ok(service) => {
                    if lease.stats().is_down() {
                        inner.shared.connected(&lease.stats().id, lease.stats().key);
                    }
                    return Ok((service, lease));
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        search.refused_by(&inner.shared, lease, error, poll_ready);
        if started.elapsed() >= inner.wait * SEARCH {
            return Err(search.give_up(inner.shared.why_none().1).into());
        }
    }
}

/// One that is not ready in time refuses too: who is overloaded gets no more until it is ready again.
async fn until_ready<S>(
    mut service: S,
    poll_ready: PollReady<S>,
    bound: Duration,
) -> Result<S, BoxError> {
    match timeout(bound, poll_fn(|cx| poll_ready(&mut service, cx))).await {
        Ok(Ok(())) => Ok(service),
        Ok(Err(error)) => Err(error),
        Err(_elapsed) => Err(format!("not ready within {bound:?}").into()),
    }
}

/// Any endpoint: whether it is ready is not asked.
pub(super) async fn obtain_any<S: Clone + Send + Sync + 'static>(
    inner: &Inner<S>,
) -> Result<(S, Lease), NoInstances> {
    let deadline = Instant::now() + inner.wait;
    let mut versions = inner.shared.versions();
    loop {
        versions.borrow_and_update();
        if let Some((service, lease)) = inner.cell.pick_any(&[]) {
            lease.stats().picked();
            return Ok((service, lease));
        }
        let (known, none) = inner.shared.why_none();
        if known || timeout_at(deadline, versions.changed()).await.is_err() {
            return Err(none);
        }
    }
}

/// What one request has learnt.
#[derive(Default)]
struct Search {
    refused: Vec<u64>,
    error: Option<BoxError>,
    n_down: usize,
}

impl Search {
    fn next<S: Clone>(&mut self, inner: &Inner<S>) -> Option<Candidate<S>> {
        let (service, lease) = inner.cell.pick_any(&self.refused)?;
        if lease.stats().is_down() {
            // Each costs an attempt to connect: with 1 000 of them down, three say as much as all.
            self.n_down += 1;
            if self.n_down > DOWN_TRIES {
                return None;
            }
        }
        Some(Candidate::pending(service, lease))
    }

    fn refused_by<S: Clone + Send + Sync + 'static>(
        &mut self,
        shared: &Arc<Shared<S>>,
        lease: Lease,
        error: BoxError,
        poll_ready: PollReady<S>,
    ) {
        let (id, key) = (lease.stats().id.clone(), lease.stats().key);
        // It is over with this endpoint: a held one that refuses is dropped, and must not wait for us.
        drop(lease);
        self.refused.push(key);
        let told = BoxError::from(error.to_string());
        self.error = Some(error);
        if shared.refused(&id, key, told) {
            let weak = Arc::downgrade(shared);
            shared.spawn(|stop| reconnect(weak, id, key, poll_ready, stop));
        }
    }

    /// The last refusal says more than that nobody is ready.
    fn give_up(self, none: NoInstances) -> NoInstances {
        match self.error {
            Some(error) => NoInstances::new(NoInstancesReason::Refused, Some(error)),
            None => none,
        }
    }
}

/// Tries to connect to an endpoint that is down until it has, or has left.
async fn reconnect<S: Clone + Send + Sync + 'static>(
    shared: Weak<Shared<S>>,
    id: InstanceId,
    key: u64,
    poll_ready: PollReady<S>,
    stop: Stop,
) {
    let Some((mut backoff, bound)) = shared.upgrade().map(|shared| {
        let config = shared.config();
        let backoff = Backoff::new(config.first_pause, config.max_pause);
        (backoff, config.reconnect_timeout)
    }) else {
        return;
    };
    let connect = async {
        loop {
            sleep(backoff.next_pause()).await;
            // Nothing is kept while it sleeps: dropping the last handle drops every service.
            let endpoint = shared.upgrade().and_then(|shared| shared.endpoint(&id, key));
            let Some(service) = endpoint
                .filter(|endpoint| endpoint.stats.is_down())
                .map(|endpoint| endpoint.service.clone())
            else {
                return;
            };
            let ready = until_ready(service, poll_ready, bound).await;
            if let (Ok(_service), Some(shared)) = (ready, shared.upgrade()) {
                return shared.connected(&id, key);
            }
        }
    };
    select! {
        biased;
        () = stop.requested() => {}
        () = connect => {}
    }
}

/// How many times the wait bounds the search: two endpoints that hang are survived.
const SEARCH: u32 = 3;
const DOWN_TRIES: usize = 3;
