//! The announcing loop: compares what the registry shall say with what it says, for ever.

mod config;
#[cfg(test)]
mod tests;
mod worker;

use std::{pin::pin, time::Duration};

use tokio::{
    select,
    sync::{mpsc, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use self::config::AnnounceConfig;
use self::worker::{Step, Worker};
use crate::{
    Announcer, BoxError, Error, ErrorKind, FirstRegistration, Registration, RegistrationHandle,
    RegistrationState, Result, Stop, Tasks, advertise::reachable,
};

/// Announces, and keeps announcing until the handle is deregistered or dropped or `tasks` is closed: what a backend's
/// [`Registrar::register`](crate::Registrar::register) is made of.
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
/// Dropped early, what has been announced is withdrawn in the background.
pub async fn announce(
    announcer: impl Announcer,
    registration: Registration,
    config: AnnounceConfig,
    tasks: &Tasks,
) -> Result<RegistrationHandle> {
    let backend = config.backend;
    reachable(&registration.instance)?;
    named(&registration, backend)?;
    let (id, first) = (registration.instance.id().clone(), registration.first);
    let (stop, state) = (CancellationToken::new(), watch::Sender::new(RegistrationState::new()));
    let (updates, update_queue) = mpsc::channel(UPDATES);
    let done = watch::Sender::new(None);
    let mut handle = RegistrationHandle {
        id,
        state: state.subscribe(),
        updates,
        stop: stop.clone(),
        done: done.subscribe(),
        _tasks: tasks.clone(),
    };
    let deregister_timeout = registration.deregister_timeout;
    let mut worker = Worker::new(announcer, registration, config, state, update_queue);
    tasks.spawn(|owner| async move {
        let deadline = keep(&mut worker, &owner, &stop, deregister_timeout).await;
        let result = worker.withdraw(deadline).await;
        done.send_replace(Some(result));
    });
    match first {
        FirstRegistration::RetryInBackground => Ok(handle),
        FirstRegistration::FailFast(bound) => match first_answer(&mut handle, bound, backend).await
        {
            Ok(()) => Ok(handle),
            Err(error) => Err(error),
        },
    }
}

/// Refuses names that could not be told from a folder of names.
fn named(registration: &Registration, backend: &'static str) -> Result<()> {
    let missing = match (registration.service(), registration.instance().id().as_str()) {
        ("", _) => "the service has an empty name; give it one",
        (_, "") => "the instance has an empty id; give it one that is its own in the service",
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Config, backend, "register").with_message(missing))
}

/// Keeps the registration up until it shall end; returns when that has to be done by. A call in flight is waited for:
/// dropped, it could reach the registry after the withdrawal and bring the entry back.
async fn keep<A: Announcer>(
    worker: &mut Worker<A>,
    owner: &Stop,
    stop: &CancellationToken,
    deregister_timeout: Duration,
) -> Instant {
    let mut stopped = pin!(async {
        select! {
            () = owner.requested() => {}
            () = stop.cancelled() => {}
        }
    });
    let mut step = Step::Announce;
    loop {
        let next = {
            let mut act = pin!(worker.act(step));
            select! {
                biased;
                next = &mut act => next,
                () = &mut stopped => {
                    let now = Instant::now();
                    // The other half is for the withdrawal.
                    let _in_flight = timeout_at(now + deregister_timeout / 2, act).await;
                    return now + deregister_timeout;
                }
            }
        };
        step = select! {
            biased;
            () = &mut stopped => return Instant::now() + deregister_timeout,
            step = worker.wait(next) => step,
        };
    }
}

/// Waits for the first registration: success, an error that repeating cannot mend, or the end of the bound.
async fn first_answer(
    handle: &mut RegistrationHandle,
    bound: Duration,
    backend: &'static str,
) -> Result<()> {
    let answered = handle.state.wait_for(|state| match state {
        RegistrationState::Registering { error } => {
            error.as_ref().is_some_and(|e| !e.is_transient())
        }
        RegistrationState::Registered
        | RegistrationState::Lost { .. }
        | RegistrationState::TakenOver { .. }
        | RegistrationState::Withheld { .. }
        | RegistrationState::Deregistered => true,
    });
    let late = match timeout(bound, answered).await {
        Ok(Ok(_state)) => None,
        Ok(Err(closed)) => Some(BoxError::from(closed)),
        Err(elapsed) => Some(elapsed.into()),
    };
    match (handle.state(), late) {
        (RegistrationState::Registering { error: Some(error) }, None) => Err(error),
        (RegistrationState::Registering { error: Some(error) }, Some(_)) => Err(error.permanent()),
        (RegistrationState::Deregistered, _) => {
            let error = Error::new(ErrorKind::Closed, backend, "register");
            Err(error.with_instance(handle.id.clone()))
        }
        (_, None) => Ok(()),
        (_, Some(late)) => Err(Error::new(ErrorKind::Timeout, backend, "register")
            .with_instance(handle.id.clone())
            .with_message(format!("not registered within {bound:?}"))
            .with_source(late)),
    }
}

/// Updates that may wait for the loop; `update` waits when there are more.
const UPDATES: usize = 8;
