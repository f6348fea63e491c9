use std::{error, fmt, time::Duration};

use tower_sd_core::BoxError;

use crate::Signal;

/// A step of a server's life, in this order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Step {
    /// Connections are accepted.
    Serve,
    /// `/ready` returns 200.
    Ready,
    /// It registers.
    Register,
    /// It lives until an order or the end of a server.
    Live,
    /// `/ready` returns 503, and the registry shows it as draining.
    Unready,
    /// Its entries are removed from the registries.
    Deregister,
    /// It goes on serving while clients take notice.
    Propagate,
    /// It accepts nothing more, and finishes its requests.
    Drain,
    /// Open connections are cut.
    Stop,
}

/// The outcome of a step.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The step is complete.
    Done,
    /// Not begun or given up, with the reason.
    Skipped(&'static str),
    /// It did not end within its bound.
    TimedOut,
    /// It failed with this error.
    Failed(BoxError),
}

/// One step of a [`Report`].
#[derive(Debug)]
#[non_exhaustive]
pub struct StepReport {
    /// The step.
    pub step: Step,
    /// Its outcome.
    pub outcome: Outcome,
    /// The first failure of the hooks before it.
    pub hook: Option<Outcome>,
    /// Its duration, hooks included.
    pub took: Duration,
}

/// The reason of a stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// A signal.
    Signal(Signal),
    /// A token of the program.
    Token,
    /// A server ended by itself.
    Ended,
    /// A step of the start failed.
    Failed,
}

/// The steps of a life and their outcomes.
///
/// [`Lifecycle::run`](crate::Lifecycle::run) logs it at level info; a program need not.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The reason of the stop.
    pub reason: Reason,
    /// Every step, in order.
    pub steps: Vec<StepReport>,
    /// The number of connections that were open after the drain, and were cut.
    pub cut: usize,
}

/// An error of a life, which was stopped in the right order all the same.
#[derive(Debug)]
pub struct LifecycleError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    step: Step,
    cause: BoxError,
    report: Report,
}

impl Report {
    /// Returns the outcome of `step`.
    #[must_use]
    pub fn outcome(&self, step: Step) -> Option<&Outcome> {
        self.steps.iter().find(|report| report.step == step).map(|report| &report.outcome)
    }

    /// Whether every step is complete or was not needed, and no connection was cut.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let well = |report: &StepReport| {
            let outcome = matches!(report.outcome, Outcome::Done | Outcome::Skipped(NOT_NEEDED));
            outcome && report.hook.is_none()
        };
        self.cut == 0 && self.steps.iter().all(well)
    }
}

impl LifecycleError {
    pub(crate) fn new(step: Step, cause: BoxError, report: Report) -> Self {
        Self(Box::new(Inner { step, cause, report }))
    }

    /// Returns the step that failed; [`Step::Serve`] for a server that fails later.
    #[must_use]
    pub fn step(&self) -> Step {
        self.0.step
    }

    /// Returns the report of all steps.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.0.report
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serve => "serve",
            Self::Ready => "ready",
            Self::Register => "register",
            Self::Live => "live",
            Self::Unready => "unready",
            Self::Deregister => "deregister",
            Self::Propagate => "propagate",
            Self::Drain => "drain",
            Self::Stop => "stop",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Skipped(why) => write!(f, "skipped ({why})"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Failed(error) => write!(f, "failed ({error})"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => write!(f, "stopped by {signal}"),
            Self::Token => f.write_str("stopped by the program"),
            Self::Ended => f.write_str("ended by itself"),
            Self::Failed => f.write_str("not started"),
        }
    }
}

impl fmt::Display for Report {
    /// `stopped by SIGTERM: serve done, ready done, register done in 3ms, …, 2 connections cut`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.reason)?;
        for (n, StepReport { step, outcome, hook, took }) in self.steps.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{step} {outcome}")?;
            let took = Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            match (step, took) {
                (_, Duration::ZERO) => {}
                (Step::Live, took) => write!(f, " after {took:?}")?,
                (_, took) => write!(f, " in {took:?}")?,
            }
            if let Some(hook) = hook {
                write!(f, ", its hook {hook}")?;
            }
        }
        match self.cut {
            0 => Ok(()),
            n => write!(f, ", {n} connections cut"),
        }
    }
}

impl fmt::Display for LifecycleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server failed in step {}", self.0.step)
    }
}

impl error::Error for LifecycleError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.0.cause)
    }
}

pub(crate) const NOT_NEEDED: &str = "not needed";
pub(crate) const HURRIED: &str = "told to stop now";
