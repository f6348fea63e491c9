//! The announcing loop: compares the desired entry with the registry's.

mod check;
mod reporter;
mod schedule;
#[cfg(test)]
mod tests;
mod updates;
mod worker;

use std::{pin::pin, time::Duration};

use tokio::{
    select,
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

use self::worker::Worker;
use crate::{
    AnnounceConfig, Announcer, Error, ErrorKind, Registration, RegistrationHandle, Result,
    Shutdown, TaskGroup,
    advertise::{reachable, warn_of_refusal},
    handle::{End, Part, Status},
};

/// Announces until the handle is deregistered or dropped or `tasks` is closed.
///
/// The body of a backend's [`Registrar::register`](crate::Registrar::register). `backend` is its
/// name in logs and errors.
///
/// # Errors
///
/// As [`Registrar::register`](crate::Registrar::register).
///
/// # Panics
///
/// Outside a tokio runtime.
///
/// # Cancel safety
///
/// Dropped early, the entry is withdrawn in the background.
pub async fn announce(
    backend: &'static str,
    announcer: Box<dyn Announcer>,
    registration: Registration,
    config: AnnounceConfig,
    tasks: &TaskGroup,
) -> Result<RegistrationHandle> {
    reachable(&registration.instance)?;
    named(&registration, backend)?;
    if tasks.shutdown().is_requested() {
        return Err(Error::new(ErrorKind::Closed, backend, "register"));
    }
    warn_of_refusal(&registration);
    let (id, fail_fast) = (registration.instance.id().clone(), registration.fail_fast_timeout());
    let ((stop, stop_on_drop), status) =
        (tasks.shutdown().child(), watch::Sender::new(Status::new()));
    let (updates, update_queue) = mpsc::channel(UPDATES);
    let done = watch::Sender::new(None);
    let end = End { stop: stop_on_drop, done: done.subscribe(), tasks: tasks.clone() };
    let part = Part { backend, id, status: status.subscribe(), updates };
    let mut handle = RegistrationHandle::new(part, end);
    let deregister_timeout = registration.deregister_timeout;
    let mut worker = Worker::new(backend, announcer, registration, config, status, update_queue);
    tasks.spawn(|_stop| async move {
        let deadline = keep(&mut worker, &stop, deregister_timeout).await;
        let result = worker.withdraw(deadline).await;
        done.send_replace(Some(result));
    });
    if let Some(bound) = fail_fast {
        handle.first_answer(bound).await?;
    }
    Ok(handle)
}

/// Refuses names that are the same as a folder of names.
fn named(registration: &Registration, backend: &'static str) -> Result<()> {
    let missing = match (registration.service(), registration.instance().id().as_str()) {
        ("", _) => "the service has an empty name; give it one",
        (_, "") => "the instance has an empty id; give it one that is its own in the service",
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Config, backend, "register").with_message(missing))
}

/// Keeps the registration up until it must end; returns the deadline of the withdrawal.
///
/// A call in flight is waited for: dropped, it could reach the registry after the withdrawal, and
/// bring the entry back.
async fn keep(worker: &mut Worker, stop: &Shutdown, deregister_timeout: Duration) -> Instant {
    loop {
        let step = select! {
            biased;
            // A health check reaches no registry: nothing of it is waited for.
            () = stop.requested() => return Instant::now() + deregister_timeout,
            step = worker.wait() => step,
        };
        let mut act = pin!(worker.act(step));
        select! {
            biased;
            () = &mut act => {}
            () = stop.requested() => {
                let now = Instant::now();
                // The other half is for the withdrawal.
                let _in_flight = timeout_at(now + deregister_timeout / 2, act).await;
                return now + deregister_timeout;
            }
        }
    }
}

/// Updates that may wait for the loop; `update` waits when there are more.
const UPDATES: usize = 8;
