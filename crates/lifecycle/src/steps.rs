use std::time::Duration;

use tokio::time::timeout;
use tower_sd_core::{
    InstanceStatus, Registrar, Registration, RegistrationHandle, RegistrationState,
    RegistrationWatch, Result,
};

use crate::{Outcome, Readiness, ReadinessState, report::NOT_NEEDED};

/// Registers as soon as the server is ready.
///
/// Returns `None` for a server that drains before it was ready: nothing is registered.
///
/// # Errors
///
/// As [`Registrar::register`].
///
/// # Cancel safety
///
/// Dropped early, an announcement is withdrawn in the background.
pub async fn register_when_ready(
    readiness: &Readiness,
    registrar: &(impl Registrar + ?Sized),
    registration: Registration,
) -> Result<Option<RegistrationHandle>> {
    match readiness.reached(ReadinessState::Ready).await {
        ReadinessState::Ready => registrar.register(registration).await.map(Some),
        ReadinessState::Starting | ReadinessState::Draining | ReadinessState::Closing => Ok(None),
    }
}

/// Shows the instance as draining within `bound`: maintenance in Consul, a status elsewhere.
///
/// Skipped for an instance that is not registered now.
///
/// # Cancel safety
///
/// Dropped early, it may or may not be shown.
pub async fn enter_maintenance(registration: &RegistrationWatch, bound: Duration) -> Outcome {
    if !matches!(registration.state(), RegistrationState::Registered) {
        return Outcome::Skipped(NOT_NEEDED);
    }
    let draining = registration.update(|instance| instance.with_status(InstanceStatus::Draining));
    outcome(timeout(bound, draining).await)
}

/// Deregisters within `bound`.
///
/// An entry that could not be withdrawn ends with its TTL.
///
/// # Cancel safety
///
/// Dropped early, the withdrawal goes on in the background.
pub async fn deregister(handle: RegistrationHandle, bound: Duration) -> Outcome {
    outcome(timeout(bound, handle.deregister()).await)
}

fn outcome(done: std::result::Result<Result<()>, tokio::time::error::Elapsed>) -> Outcome {
    match done {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(error)) => Outcome::Failed(error.into()),
        Err(_elapsed) => Outcome::TimedOut,
    }
}
