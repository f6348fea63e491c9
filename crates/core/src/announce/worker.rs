use std::{future::Future, mem::replace, time::Duration};

use tokio::{
    select,
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    check::Check,
    reporter::Reporter,
    schedule::{MIN_ATTEMPT, MIN_CAP, Schedule, Step},
    updates::Updates,
};
use crate::{
    AnnounceConfig, Announcement, Announcer, Backoff, CheckResult, Error, ErrorKind, Instance,
    LeaseTtl, LossReason, Registration, Renewal, Result,
    handle::{Status, Update},
    panics::{contained, contained_now},
};

/// Keeps one registration up: takes the steps of its schedule.
pub(super) struct Worker {
    announcer: Box<dyn Announcer>,
    wanted: Announcement,
    /// The instance that the registry has accepted last.
    accepted: Option<Instance>,
    /// An announcement since then may have taken effect or not.
    is_uncertain: bool,
    /// The registry may have an entry of this registration.
    is_touched: bool,
    /// A pushed loss is not polled for again before the next call.
    is_push_ignored: bool,
    schedule: Schedule,
    check: Check,
    /// What the check that is due has returned.
    probed: Option<CheckResult>,
    updates: Updates,
    report: Reporter,
}

impl Worker {
    pub(super) fn new(
        backend: &'static str,
        announcer: Box<dyn Announcer>,
        registration: Registration,
        config: AnnounceConfig,
        status: watch::Sender<Status>,
        updates: mpsc::Receiver<Update>,
    ) -> Self {
        let now = Instant::now();
        let schedule = Schedule::new(config, &registration, now);
        let wanted = Announcement::new(registration.service, registration.instance);
        Self {
            announcer,
            accepted: None,
            is_uncertain: false,
            is_touched: false,
            is_push_ignored: false,
            report: Reporter {
                backend,
                service: wanted.service.clone(),
                instance: wanted.instance.id().clone(),
                in_background: registration.in_background,
                status,
                latest_failure: None,
                overriding: None,
            },
            wanted,
            schedule,
            check: Check {
                check: registration.health,
                interval: registration.health_interval,
                at: now,
            },
            probed: None,
            updates: Updates { queue: updates, waiting: Vec::new() },
        }
    }

    /// Waits for the time of the next step, and takes updates and losses meanwhile; runs the health
    /// check, if that is the step.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn wait(&mut self) -> Step {
        loop {
            // There is always a step: what is not announced waits for the next health check.
            let next = self.schedule.next(self.check.at());
            let (at, step) = next.unwrap_or_else(|| (Instant::now(), Step::Announce));
            let is_watched = (self.schedule.is_registered() || self.report.is_taken_over())
                && !self.is_push_ignored;
            let lost = contained(|| self.announcer.lost());
            select! {
                biased;
                () = sleep_until(at) => {
                    if step == Step::Check {
                        let (bound, renewals) =
                            (self.schedule.check_timeout(), self.schedule.renew_interval());
                        self.probed = Some(self.check.run(bound, renewals).await);
                    }
                    return step;
                }
                reason = lost, if is_watched => self.pushed(reason),
                Some(update) = self.updates.queue.recv() => self.apply(update),
            }
        }
    }

    /// Takes a step.
    pub(super) async fn act(&mut self, step: Step) {
        self.is_push_ignored = false;
        if self.schedule.is_expired() {
            let error = self.report.error(ErrorKind::Timeout, "renew");
            let error = error.with_message("not renewed within its TTL");
            let cause = self.report.latest_failure.clone();
            self.lost(cause.into_iter().fold(error, Error::with_source));
        }
        match step {
            Step::Check => self.checked().await,
            Step::Renew if self.schedule.is_registered() => self.renew().await,
            Step::Renew => {}
            Step::Announce => self.announce().await,
        }
    }

    /// Removes the entry, trying until `deadline`.
    pub(super) async fn withdraw(&mut self, deadline: Instant) -> Result<()> {
        let mut backoff = Backoff::new(self.schedule.config.initial_backoff, MIN_CAP);
        let mut result = Ok(());
        while self.is_touched {
            let left = deadline.saturating_duration_since(Instant::now());
            // So that an attempt that hangs leaves time for another one.
            let bound = (left / 2).max(MIN_ATTEMPT).min(left);
            result = bounded(&self.report, "deregister", bound, || self.announcer.withdraw()).await;
            self.is_touched = match &result {
                Ok(()) => false,
                Err(error) => error.is_transient() && Instant::now() < deadline,
            };
            if self.is_touched {
                let _over = timeout_at(deadline, sleep(backoff.next_pause())).await;
            }
        }
        self.report.withdrawn(&result, self.schedule.was_registered());
        result
    }

    async fn checked(&mut self) {
        let Some(health) = self.probed.take() else { return };
        let is_changed = self.report.checked(&self.wanted.health, &health);
        self.wanted.health = health;
        if self.is_withheld() {
            return self.withhold().await;
        }
        if !self.schedule.is_registered() {
            self.schedule.announce();
        } else if is_changed {
            self.schedule.renew();
            self.report.accepted(&self.wanted.health);
        }
    }

    /// The instance is critical, and the registry has no state for that.
    fn is_withheld(&self) -> bool {
        let shows_health = || contained_now(|| self.announcer.shows_health());
        matches!(self.wanted.health, CheckResult::Critical(_)) && shows_health() != Some(true)
    }

    /// Takes the instance out of the registry until it has recovered.
    async fn withhold(&mut self) {
        self.schedule.withheld();
        self.report.accepted(&self.wanted.health);
        self.updates.answer(&Ok(()));
        if self.is_touched {
            let bound = self.schedule.config.call_timeout;
            match bounded(&self.report, "deregister", bound, || self.announcer.withdraw()).await {
                Ok(()) => self.is_touched = false,
                Err(error) => {
                    let pause = self.schedule.pause();
                    self.report.failed(&error, pause);
                    self.check.again_by(Instant::now() + pause);
                }
            }
        }
    }

    async fn announce(&mut self) {
        let was_touched = replace(&mut self.is_touched, true);
        let start = Instant::now();
        let bound = self.schedule.announcing(start);
        match bounded(&self.report, "register", bound, || self.announcer.announce(&self.wanted))
            .await
        {
            Ok(Renewal::Renewed(ttl)) => self.announced(ttl, None, start),
            Ok(Renewal::Overridden(ttl, status)) => self.announced(ttl, Some(status), start),
            Ok(Renewal::Lost(LossReason::TakenOver { by })) => self.taken_over(by),
            Ok(Renewal::Lost(reason)) => self.not_announced(self.report.loss(&reason).transient()),
            Err(error) => {
                if error.is_without_effect() {
                    self.is_touched = was_touched;
                }
                self.not_announced(error);
            }
        }
    }

    fn announced(&mut self, ttl: LeaseTtl, overriding: Option<&'static str>, start: Instant) {
        if !self.schedule.is_registered() {
            self.report.registered();
        }
        self.is_uncertain = false;
        self.wanted.takes_over = false;
        self.accepted = Some(self.wanted.instance.clone());
        self.schedule.announced(ttl, start);
        self.report.succeeded(|stats| stats.announced += 1);
        self.report.overridden(overriding);
        self.report.accepted(&self.wanted.health);
        self.updates.answer(&Ok(()));
    }

    fn not_announced(&mut self, error: Error) {
        let pause = self.schedule.announcement_failed(&error);
        self.report.failed(&error, pause);
        self.updates.answer(&Err(error.clone()));
        match &self.accepted {
            _ if error.is_transient() => self.is_uncertain = true,
            Some(accepted) if *accepted != self.wanted.instance => {
                self.wanted.instance = accepted.clone();
                self.schedule.restored(self.is_uncertain);
            }
            _ => {}
        }
        if !self.schedule.is_registered() {
            self.report.not_registered(error);
        }
    }

    async fn renew(&mut self) {
        let start = Instant::now();
        let bound = self.schedule.renew_timeout();
        match bounded(&self.report, "renew", bound, || self.announcer.renew(&self.wanted)).await {
            Ok(Renewal::Renewed(ttl)) => self.renewed(ttl, None, start),
            Ok(Renewal::Overridden(ttl, status)) => self.renewed(ttl, Some(status), start),
            Ok(Renewal::Lost(reason)) => self.lost_because(reason),
            Err(error) => {
                let pause = self.schedule.renewal_failed(&error);
                self.report.failed(&error, pause);
                if self.schedule.is_expired() {
                    self.lost(error);
                }
            }
        }
    }

    fn renewed(&mut self, ttl: LeaseTtl, overriding: Option<&'static str>, start: Instant) {
        self.schedule.renewed(ttl, start);
        self.report.succeeded(|stats| stats.renewed += 1);
        if self.report.overridden(overriding) {
            self.report.accepted(&self.wanted.health);
        }
    }

    /// The registry reports a loss; `None`: the backend panicked.
    fn pushed(&mut self, reason: Option<LossReason>) {
        match reason {
            Some(reason) if self.schedule.is_registered() => return self.lost_because(reason),
            // The entry of the other registration is gone.
            Some(LossReason::Gone | LossReason::SessionEnded) => self.schedule.lost(),
            Some(LossReason::TakenOver { .. }) => {}
            None => drop(self.report.panicked("lost")),
        }
        self.is_push_ignored = true;
    }

    fn lost_because(&mut self, reason: LossReason) {
        match reason {
            LossReason::TakenOver { by } => self.taken_over(by),
            reason => self.lost(self.report.loss(&reason)),
        }
    }

    fn lost(&mut self, error: Error) {
        self.schedule.lost();
        self.report.lost(error);
    }

    fn taken_over(&mut self, by: String) {
        self.wanted.takes_over = self.schedule.taken_over();
        let error = self.report.error(ErrorKind::Conflict, "update");
        self.updates.answer(&Err(error.with_message(format!("taken over by {by}"))));
        self.report.taken_over(by);
    }

    fn apply(&mut self, update: Update) {
        match self.updates.apply(update, &self.wanted.instance) {
            Ok(instance) => self.wanted.instance = instance,
            Err((caller, message)) => {
                let error = self.report.error(ErrorKind::Config, "update").with_message(message);
                let _gone = caller.send(Err(error));
                return;
            }
        }
        if self.is_withheld() {
            self.updates.answer(&Ok(()));
        } else {
            self.schedule.announce();
        }
    }
}

/// Runs a call of the announcer for at most `bound`; a panic is an error like others.
async fn bounded<T, F: Future<Output = Result<T>>>(
    report: &Reporter,
    operation: &'static str,
    bound: Duration,
    call: impl FnOnce() -> F,
) -> Result<T> {
    match timeout(bound, contained(call)).await {
        Ok(Some(answer)) => answer,
        Ok(None) => Err(report.panicked(operation)),
        Err(_elapsed) => Err(report.error(ErrorKind::Timeout, operation)),
    }
}
