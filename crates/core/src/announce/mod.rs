//! The announcing loop: compares the desired entry with the registry's.

mod call;
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
use tokio_util::sync::CancellationToken;

use self::{schedule::Step, worker::Worker};
use crate::{
    AnnounceConfig, Announcer, Error, ErrorKind, Registration, RegistrationHandle, Result,
    Shutdown, TaskGroup,
    advertise::{reachable, warn_of_refusal},
    handle::{End, Status},
};

/// Announces until the handle is deregistered or dropped or `tasks` is closed.
///
/// The body of a backend's [`Registrar::register`](crate::Registrar::register).
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
    announcer: impl Announcer,
    registration: Registration,
    config: AnnounceConfig,
    tasks: &TaskGroup,
) -> Result<RegistrationHandle> {
    let config = config.clamped();
    let backend = config.backend;
    reachable(&registration.instance)?;
    named(&registration, backend)?;
    warn_of_refusal(&registration);
    let (id, fail_fast) = (registration.instance.id().clone(), registration.fail_fast);
    let (stop, status) = (CancellationToken::new(), watch::Sender::new(Status::new()));
    let (updates, update_queue) = mpsc::channel(UPDATES);
    let done = watch::Sender::new(None);
    let end = End { stop: stop.clone().drop_guard(), done: done.subscribe(), tasks: tasks.clone() };
    let mut handle = RegistrationHandle::new(backend, id, status.subscribe(), updates, end);
    let deregister_timeout = registration.deregister_timeout;
    let mut worker = Worker::new(announcer, registration, config, status, update_queue);
    tasks.spawn(|owner| async move {
        let deadline = keep(&mut worker, &owner, &stop, deregister_timeout).await;
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
async fn keep<A: Announcer>(
    worker: &mut Worker<A>,
    owner: &Shutdown,
    stop: &CancellationToken,
    deregister_timeout: Duration,
) -> Instant {
    let mut stopped = pin!(async {
        select! {
            () = owner.requested() => {}
            () = stop.cancelled() => {}
        }
    });
    loop {
        let step = select! {
            biased;
            () = &mut stopped => return Instant::now() + deregister_timeout,
            step = worker.wait() => step,
        };
        if step == Step::Check {
            // It reaches no registry: nothing of it is waited for.
            select! {
                biased;
                () = &mut stopped => return Instant::now() + deregister_timeout,
                () = worker.probe() => {}
            }
        }
        let mut act = pin!(worker.act(step));
        select! {
            biased;
            () = &mut act => {}
            () = &mut stopped => {
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
