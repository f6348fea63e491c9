use std::{any::Any, sync::PoisonError};

use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::sync::{Mutex, MutexGuard};

/// The service of an endpoint that drains.
///
/// It is dropped with the last guard, because guards own the
/// [`EndpointStats`](super::EndpointStats).
#[derive(Default)]
pub(super) struct Parking(Mutex<Option<Parked>>);

struct Parked {
    service: Box<dyn Any + Send>,
    _token: TaskTrackerToken,
}

impl Parking {
    pub(super) fn park<S: Send + 'static>(&self, service: S, token: TaskTrackerToken) {
        *self.parked() = Some(Parked { service: Box::new(service), _token: token });
    }

    /// Takes the service back from the requests in flight.
    pub(super) fn unpark<S: 'static>(&self) -> Option<S> {
        let parked = self.parked().take()?;
        parked.service.downcast().ok().map(|service| *service)
    }

    fn parked(&self) -> MutexGuard<'_, Option<Parked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
