use std::{
    future::Future,
    mem::{discriminant, take},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use futures_util::FutureExt;
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    AnnounceConfig, Announcement, Announcer, Backoff, Error, ErrorKind, FirstRegistration, Health,
    HealthCheck, LeaseTtl, LossReason, Registration, RegistrationState, Renewal, Result,
    registration::Update,
};

/// Keeps one registration up.
pub(super) struct Worker<A> {
    announcer: A,
    desired: Announcement,
    health: Option<Arc<dyn HealthCheck>>,
    health_every: Option<Duration>,
    config: AnnounceConfig,
    backoff: Backoff,
    rng: Rng,
    state: watch::Sender<RegistrationState>,
    updates: mpsc::Receiver<Update>,
    /// Who waits for the next answer of the registry.
    waiting: Vec<oneshot::Sender<Result<()>>>,
    term: Option<LeaseTtl>,
    /// When the registry last accepted us.
    proved_at: Option<Instant>,
    renew_at: Instant,
    /// The registry may have an entry of ours.
    touched: bool,
    /// Somebody waits for the first registration, and is told of its failure.
    fails_fast: bool,
    /// Why the latest call failed, if it did.
    latest_failure: Option<Error>,
}

/// What to do next with the registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Announce,
    Renew,
}

/// A step, and how long to wait for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    after: Duration,
    step: Step,
}

impl<A: Announcer> Worker<A> {
    pub(super) fn new(
        announcer: A,
        registration: Registration,
        config: AnnounceConfig,
        state: watch::Sender<RegistrationState>,
        updates: mpsc::Receiver<Update>,
    ) -> Self {
        let mut rng = config.seed.map_or_else(Rng::new, Rng::with_seed);
        Self {
            announcer,
            desired: Announcement::new(registration.service, registration.instance),
            health: registration.health,
            health_every: registration.health_every,
            backoff: Backoff::new(config.backoff_initial, MIN_CAP).with_seed(rng.u64(..)),
            config,
            rng,
            state,
            updates,
            waiting: Vec::new(),
            term: None,
            proved_at: None,
            renew_at: Instant::now(),
            touched: false,
            fails_fast: matches!(registration.first, FirstRegistration::FailFast(_)),
            latest_failure: None,
        }
    }

    /// Makes the registry say what it shall.
    pub(super) async fn act(&mut self, step: Step) -> Next {
        let health_changed = self.check_health().await;
        if let (Health::Critical(reason), false) =
            (&self.desired.health, self.announcer.shows_health())
        {
            let reason = reason.clone();
            return self.withhold(reason).await;
        }
        let step = match step {
            Step::Renew if self.is_expired() => {
                let error = self.error(ErrorKind::Timeout, "renew", "not renewed within its TTL");
                let cause = self.latest_failure.take();
                self.lost(cause.into_iter().fold(error, Error::with_source));
                Step::Announce
            }
            Step::Renew if !self.is_registered() => Step::Announce,
            Step::Renew if Instant::now() < self.renew_at && !health_changed => {
                return self.next_renewal();
            }
            step => step,
        };
        self.touched = true;
        let bound = self.config.call_timeout;
        let answer = match step {
            Step::Announce => {
                let announced = self.announcer.announce(&self.desired);
                bounded(bound, announced).await
            }
            Step::Renew => bounded(bound, self.announcer.renew(&self.desired)).await,
        };
        let answer = answer.unwrap_or_else(|| {
            let operation = if step == Step::Announce { "register" } else { "renew" };
            Err(self.error(ErrorKind::Timeout, operation, "no answer in time"))
        });
        self.answered(step, answer)
    }

    /// Waits for the time of the next step, or for what comes before it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn wait(&mut self, next: Next) -> Step {
        let (mut at, mut step) = (Instant::now() + next.after, next.step);
        loop {
            let pushed = self.is_registered();
            select! {
                biased;
                Some(update) = self.updates.recv() => if self.apply(update) {
                    return Step::Announce;
                },
                reason = self.announcer.lost(), if pushed => {
                    let proved_at = self.proved_at;
                    let next = self.lost_because(reason);
                    if matches!(*self.state.borrow(), RegistrationState::TakenOver { .. }) {
                        (at, step) = (Instant::now() + next.after, next.step);
                        continue;
                    }
                    // Two who fight over one entry would otherwise do it without pause.
                    if proved_at.is_some_and(|at| at.elapsed() < MIN_BETWEEN_LOSSES) {
                        sleep(self.backoff.next_pause()).await;
                    }
                    return Step::Announce;
                }
                () = tokio::time::sleep_until(at) => return step,
            }
        }
    }

    /// Removes the entry, trying until `deadline`.
    pub(super) async fn withdraw(&mut self, deadline: Instant) -> Result<()> {
        let mut result = Ok(());
        while self.touched {
            result = match timeout_at(deadline, self.announcer.withdraw()).await {
                Ok(result) => result,
                Err(_elapsed) => Err(result.err().unwrap_or_else(|| {
                    let message = "not withdrawn in time; the entry disappears with its TTL";
                    self.error(ErrorKind::Timeout, "deregister", message)
                })),
            };
            self.touched = match &result {
                Ok(()) => false,
                Err(error) => error.is_transient() && Instant::now() < deadline,
            };
            if self.touched {
                let _over = timeout_at(deadline, sleep(self.backoff.next_pause())).await;
            }
        }
        let (backend, service) = (self.config.backend, &self.desired.service);
        let instance = self.desired.instance.id();
        match &result {
            Ok(()) if self.term.is_some() => {
                tracing::info!(backend, service, %instance, "deregistered");
            }
            Ok(()) => {}
            Err(error) => {
                let error = error.chain();
                tracing::warn!(backend, service, %instance, %error, "not deregistered");
            }
        }
        self.state.send_replace(RegistrationState::Deregistered);
        result
    }

    /// Asks the server's own check; true when its verdict has changed.
    async fn check_health(&mut self) -> bool {
        let Some(check) = &self.health else {
            return false;
        };
        let bound = self.config.health_timeout;
        let health = timeout(bound, AssertUnwindSafe(check.check()).catch_unwind()).await;
        let health = match health {
            Ok(Ok(health)) => health,
            Ok(Err(_panic)) => Health::Critical("the health check panicked".to_owned()),
            Err(_elapsed) => {
                Health::Critical(format!("the health check did not answer within {bound:?}"))
            }
        };
        let changed = discriminant(&health) != discriminant(&self.desired.health);
        self.desired.health = health;
        changed
    }

    /// The registry has no way to show a critical instance: take it out until it has recovered.
    async fn withhold(&mut self, reason: String) -> Next {
        let every = self.renew_every();
        if self.touched {
            let withdrawn = bounded(self.config.call_timeout, self.announcer.withdraw()).await;
            if !matches!(withdrawn, Some(Ok(()))) {
                return Next { after: self.backoff.next_pause(), step: Step::Renew };
            }
            self.touched = false;
        }
        let was_withheld = matches!(*self.state.borrow(), RegistrationState::Withheld { .. });
        if !was_withheld {
            let (backend, service) = (self.config.backend, &self.desired.service);
            let instance = self.desired.instance.id();
            tracing::warn!(backend, service, %instance, reason, "withheld while critical");
        }
        self.state.send_replace(RegistrationState::Withheld { reason });
        self.proved_at = None;
        self.tell(&Ok(()));
        Next { after: self.health_every.unwrap_or(every).min(every), step: Step::Announce }
    }

    fn answered(&mut self, step: Step, answer: Result<Renewal>) -> Next {
        match answer {
            Ok(Renewal::Renewed(term)) => {
                self.registered(term);
                self.next_renewal()
            }
            Ok(Renewal::Lost(reason)) => self.lost_because(reason),
            Err(error) => {
                let pause = self.backoff.next_pause();
                let backend = self.config.backend;
                tracing::debug!(backend, service = self.desired.service, error = %error.chain(), ?pause, "not announced");
                self.tell(&Err(error.clone()));
                self.latest_failure = Some(error.clone());
                self.failed(error);
                let step = if self.is_registered() { step } else { Step::Announce };
                Next { after: pause, step }
            }
        }
    }

    fn registered(&mut self, term: LeaseTtl) {
        let now = Instant::now();
        if self.term != Some(term) {
            let cap = term.renew_interval().clamp(MIN_CAP, MAX_CAP);
            self.backoff =
                Backoff::new(self.config.backoff_initial, cap).with_seed(self.rng.u64(..));
        }
        self.term = Some(term);
        self.desired.takes_over = false;
        self.latest_failure = None;
        self.proved_at = Some(now);
        self.renew_at = now + term.renew_interval().mul_f64(0.9 + 0.1 * self.rng.f64());
        self.tell(&Ok(()));
        if !self.is_registered() {
            let (backend, service) = (self.config.backend, &self.desired.service);
            let instance = self.desired.instance.id();
            tracing::info!(backend, service, %instance, "registered");
            self.state.send_replace(RegistrationState::Registered);
        }
    }

    /// A call failed. While the TTL runs the registry still believes the last one.
    fn failed(&mut self, error: Error) {
        if self.is_registered() {
            if self.is_expired() {
                self.lost(error);
            }
            return;
        }
        let is_first =
            matches!(*self.state.borrow(), RegistrationState::Registering { error: None });
        if is_first && !self.fails_fast {
            let (backend, service) = (self.config.backend, &self.desired.service);
            let instance = self.desired.instance.id();
            tracing::warn!(backend, service, %instance, error = %error.chain(), "not registered yet");
        }
        self.state.send_modify(|state| match state {
            RegistrationState::Registering { error: latest } => *latest = Some(error),
            RegistrationState::Lost { error: latest, .. } => *latest = error,
            state => *state = RegistrationState::Lost { since: Instant::now(), error },
        });
    }

    fn lost_because(&mut self, reason: LossReason) -> Next {
        let message = match reason {
            LossReason::Gone => "the registry does not have the entry",
            LossReason::SessionEnded => "the session of the entry has ended",
            LossReason::TakenOver { by } => return self.taken_over(by),
        };
        self.lost(self.error(ErrorKind::NotFound, "renew", message));
        Next { after: Duration::ZERO, step: Step::Announce }
    }

    /// The entry is a successor's, which is left alone; it is tried again whether that has gone.
    fn taken_over(&mut self, by: String) -> Next {
        if !matches!(*self.state.borrow(), RegistrationState::TakenOver { .. }) {
            let (backend, service) = (self.config.backend, &self.desired.service);
            let instance = self.desired.instance.id();
            tracing::warn!(backend, service, %instance, by, "registration taken over");
        }
        self.proved_at = None;
        self.tell(&Err(self.error(ErrorKind::Conflict, "update", "the entry was taken over")));
        self.state.send_replace(RegistrationState::TakenOver { by });
        Next { after: self.renew_every(), step: Step::Announce }
    }

    fn lost(&mut self, error: Error) {
        let (backend, service) = (self.config.backend, &self.desired.service);
        let instance = self.desired.instance.id();
        tracing::warn!(backend, service, %instance, error = %error.chain(), "registration lost");
        self.proved_at = None;
        self.state.send_replace(RegistrationState::Lost { since: Instant::now(), error });
    }

    /// Takes a user's change; true when it has to be announced.
    fn apply(&mut self, update: Update) -> bool {
        let before = &self.desired.instance;
        let after = (update.change)(before.clone());
        let same = after.id() == before.id()
            && after.host() == before.host()
            && after.port() == before.port();
        if !same {
            let message = "id, host and port cannot change; register the other instance and deregister this one";
            self.waiting.push(update.accepted);
            let error = self.error(ErrorKind::Config, "update", message);
            self.tell(&Err(error));
            return false;
        }
        self.desired.instance = after;
        self.waiting.push(update.accepted);
        true
    }

    fn tell(&mut self, result: &Result<()>) {
        for waiting in take(&mut self.waiting) {
            // Whoever stopped waiting is not interested.
            let _gone = waiting.send(result.clone());
        }
    }

    fn next_renewal(&self) -> Next {
        let until = self.renew_at.saturating_duration_since(Instant::now());
        Next { after: self.health_every.map_or(until, |every| every.min(until)), step: Step::Renew }
    }

    fn renew_every(&self) -> Duration {
        self.term.map_or(DEFAULT_RENEWAL, |term| term.renew_interval())
    }

    fn is_registered(&self) -> bool {
        matches!(*self.state.borrow(), RegistrationState::Registered)
    }

    /// The TTL has passed since the registry last heard of us: it was away, or this process was suspended.
    fn is_expired(&self) -> bool {
        match (self.proved_at, self.term.and_then(|term| term.ttl())) {
            (Some(proved_at), Some(ttl)) => proved_at.elapsed() >= ttl,
            (_, None) => false,
            (None, Some(_)) => true,
        }
    }

    fn error(&self, kind: ErrorKind, operation: &'static str, message: &str) -> Error {
        Error::new(kind, self.config.backend, operation)
            .with_instance(self.desired.instance.id().clone())
            .with_message(message)
    }
}

impl<A> Drop for Worker<A> {
    /// A task that ended by a panic, or with its runtime, leaves nobody in the belief of being registered.
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Closed, self.config.backend, "renew")
            .with_instance(self.desired.instance.id().clone())
            .with_message("the task that kept the registration up has ended");
        self.state.send_if_modified(|state| {
            let lives = !matches!(state, RegistrationState::Deregistered);
            if lives {
                *state = RegistrationState::Lost { since: Instant::now(), error };
            }
            lives
        });
    }
}

impl RegistrationState {
    pub(super) fn new() -> Self {
        Self::Registering { error: None }
    }
}

async fn bounded<T>(bound: Duration, call: impl Future<Output = Result<T>>) -> Option<Result<T>> {
    timeout(bound, call).await.ok()
}

/// Until the registry has said what its TTL is: a third of 15 s, the TTL that most backends ask for.
const DEFAULT_RENEWAL: Duration = Duration::from_secs(5);
const MIN_CAP: Duration = Duration::from_secs(1);
const MAX_CAP: Duration = Duration::from_secs(60);
/// A loss sooner than this after an announcement is answered with a pause.
const MIN_BETWEEN_LOSSES: Duration = Duration::from_secs(1);
