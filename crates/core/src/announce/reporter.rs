use std::{
    mem::{discriminant, replace},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    CheckResult, Error, ErrorKind, InstanceId, LossReason, RegistrationState, RegistrationStats,
    Result, handle::Status,
};

/// Publishes the state of a registration, and logs its changes.
pub(super) struct Reporter {
    pub(super) backend: &'static str,
    pub(super) service: String,
    pub(super) instance: InstanceId,
    /// No caller gets the error of the first attempt.
    pub(super) in_background: bool,
    pub(super) status: watch::Sender<Status>,
    /// The error of the latest call, if it failed.
    pub(super) latest_failure: Option<Error>,
    /// The status that an operator has set.
    pub(super) overriding: Option<&'static str>,
}

impl Reporter {
    pub(super) fn error(&self, kind: ErrorKind, operation: &'static str) -> Error {
        Error::new(kind, self.backend, operation).with_instance(self.instance.clone())
    }

    pub(super) fn is_taken_over(&self) -> bool {
        matches!(self.status.borrow().state, RegistrationState::TakenOver { .. })
    }

    pub(super) fn succeeded(&mut self, count: impl FnOnce(&mut RegistrationStats)) {
        self.latest_failure = None;
        self.edit(|status| count(&mut status.stats));
    }

    pub(super) fn failed(&mut self, error: &Error, pause: Duration) {
        let Self { backend, service, instance, .. } = self;
        tracing::debug!(backend, service, %instance, error = %error.chain(), ?pause, "call failed");
        self.latest_failure = Some(error.clone());
        self.edit(|status| {
            status.stats.failed += 1;
            status.last_error = Some((Instant::now(), error.clone()));
        });
    }

    /// A bug of the backend: the same call may panic again with the same announcement.
    pub(super) fn panicked(&self, operation: &'static str) -> Error {
        let Self { backend, service, instance, .. } = self;
        tracing::error!(backend, service, %instance, operation, "backend panicked");
        self.error(ErrorKind::Protocol, operation).permanent().with_message("the backend panicked")
    }

    pub(super) fn registered(&self) {
        let Self { backend, service, instance, .. } = self;
        tracing::info!(backend, service, %instance, "registered");
    }

    pub(super) fn not_registered(&self, error: Error) {
        let Self { backend, service, instance, .. } = self;
        let is_first =
            matches!(self.status.borrow().state, RegistrationState::Registering { error: None });
        if is_first && self.in_background {
            tracing::warn!(backend, service, %instance, error = %error.chain(), "not registered yet");
        }
        let state = match &self.status.borrow().state {
            RegistrationState::TakenOver { by } => RegistrationState::TakenOver { by: by.clone() },
            RegistrationState::Registering { .. } => {
                RegistrationState::Registering { error: Some(error) }
            }
            RegistrationState::Lost { since, .. } => {
                RegistrationState::Lost { since: *since, error }
            }
            _ => RegistrationState::Lost { since: Instant::now(), error },
        };
        self.state(state);
    }

    pub(super) fn lost(&self, error: Error) {
        let Self { backend, service, instance, .. } = self;
        tracing::warn!(backend, service, %instance, error = %error.chain(), "registration lost");
        self.edit(|status| status.stats.lost += 1);
        self.state(RegistrationState::Lost { since: Instant::now(), error });
    }

    pub(super) fn taken_over(&self, by: String) {
        if !self.is_taken_over() {
            let Self { backend, service, instance, .. } = self;
            tracing::warn!(backend, service, %instance, by, "registration taken over");
            self.edit(|status| status.stats.lost += 1);
        }
        self.state(RegistrationState::TakenOver { by });
    }

    /// Compares two results of the health check; true if they differ in kind.
    pub(super) fn checked(&self, before: &CheckResult, after: &CheckResult) -> bool {
        let Self { backend, service, instance, .. } = self;
        match (before, after) {
            (CheckResult::Critical(_), CheckResult::Critical(_)) => {}
            (_, CheckResult::Critical(reason)) => {
                tracing::warn!(backend, service, %instance, reason, "health critical");
            }
            (CheckResult::Critical(_), _) => {
                tracing::info!(backend, service, %instance, "health recovered");
            }
            _ => {}
        }
        discriminant(before) != discriminant(after)
    }

    /// Publishes that the registry, or this loop in its place, has acted on this health.
    pub(super) fn accepted(&self, health: &CheckResult) {
        self.state(match health {
            CheckResult::Critical(reason) => RegistrationState::Critical { reason: reason.clone() },
            CheckResult::Passing | CheckResult::Warning(_) => match self.overriding {
                Some(status) => RegistrationState::Overridden { status: status.to_owned() },
                None => RegistrationState::Registered,
            },
        });
    }

    /// Notes the status that an operator has set, or that there is none; true if it has changed.
    pub(super) fn overridden(&mut self, overriding: Option<&'static str>) -> bool {
        let before = replace(&mut self.overriding, overriding);
        if before != overriding {
            let Self { backend, service, instance, .. } = self;
            match overriding {
                Some(status) => {
                    tracing::warn!(backend, service, %instance, status, "status overridden by an operator");
                }
                None => tracing::info!(backend, service, %instance, "override of the status ended"),
            }
        }
        before != overriding
    }

    pub(super) fn loss(&self, reason: &LossReason) -> Error {
        let message = match reason {
            LossReason::SessionEnded => "the session of the entry has ended",
            LossReason::Gone | LossReason::TakenOver { .. } => {
                "the registry does not have the entry"
            }
        };
        self.error(ErrorKind::NotFound, "renew").with_message(message)
    }

    pub(super) fn withdrawn(&self, result: &Result<()>, was_registered: bool) {
        let Self { backend, service, instance, .. } = self;
        match result {
            Ok(()) if was_registered => {
                tracing::info!(backend, service, %instance, "deregistered");
            }
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(backend, service, %instance, error = %error.chain(), "not deregistered");
            }
        }
        self.state(RegistrationState::Deregistered);
    }

    /// Publishes the state; subscribers wake if it has changed but for the text of an error.
    fn state(&self, state: RegistrationState) {
        self.status.send_if_modified(|status| {
            let before = replace(&mut status.state, state);
            differ(&before, &status.state)
        });
    }

    fn edit(&self, edit: impl FnOnce(&mut Status)) {
        self.status.send_if_modified(|status| {
            edit(status);
            false
        });
    }
}

fn differ(before: &RegistrationState, after: &RegistrationState) -> bool {
    use RegistrationState::{Lost, Overridden, Registering, TakenOver};
    let nature = |error: &Error| (error.kind(), error.is_transient());
    match (before, after) {
        (Registering { error: before }, Registering { error: after }) => {
            before.as_ref().map(nature) != after.as_ref().map(nature)
        }
        // The task has ended: nothing comes any more.
        (Lost { error: before, .. }, Lost { error: after, .. }) => {
            (before.kind() == ErrorKind::Closed) != (after.kind() == ErrorKind::Closed)
        }
        (Overridden { status: before }, Overridden { status: after }) => before != after,
        (TakenOver { by: before }, TakenOver { by: after }) => before != after,
        (before, after) => discriminant(before) != discriminant(after),
    }
}

impl Drop for Reporter {
    /// A task that ended with its runtime must not leave a registration that seems alive.
    fn drop(&mut self) {
        let is_over = matches!(self.status.borrow().state, RegistrationState::Deregistered);
        if !is_over {
            let error = self.error(ErrorKind::Closed, "renew");
            let error = error.with_message("the task that kept the registration up has ended");
            self.state(RegistrationState::Lost { since: Instant::now(), error });
        }
    }
}
