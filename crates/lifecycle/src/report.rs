use std::{error, fmt, time::Duration};

use tower_sd_core::{BoxError, chain};

/// The steps of a server's life with their outcomes and durations.
///
/// `Display` prints one line. [`Lifecycle::run`](crate::Lifecycle::run) logs it at level info.
#[derive(Debug)]
pub struct Report {
    pub(crate) reason: Reason,
    pub(crate) steps: Vec<StepReport>,
    /// The connections that were open after the drain.
    pub(crate) n_aborted: usize,
}

/// An error of a life, which was stopped in the right order all the same.
///
/// `Display` names the failed step; the cause is behind [`source`](error::Error::source). `Debug`,
/// which a `main` that returns it prints, has all causes in one line.
pub struct LifecycleError(Box<Inner>);

struct Inner {
    step: Step,
    cause: BoxError,
    report: Report,
}

/// A step of a server's life, in this order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Connections are accepted.
    Serve,
    /// `/ready` returns 200.
    Ready,
    /// The registrations are announced.
    Register,
    /// The server runs until an order or the end of a server.
    Live,
    /// `/ready` returns 503, and the registry shows the instance as draining.
    Unready,
    /// The entries are removed from the registries.
    Deregister,
    /// The server runs on while clients take notice.
    Propagate,
    /// The listeners are closed, and requests in flight end.
    Drain,
    /// Open connections are aborted.
    Stop,
}

/// One step of a [`Report`].
#[derive(Debug)]
pub(crate) struct StepReport {
    pub(crate) step: Step,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Done,
    /// Not begun or given up, with the reason.
    Skipped(&'static str),
    /// The step did not end within its bound.
    TimedOut,
    Failed(BoxError),
}

/// The reason of a stop. `Display` follows "stopped by".
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    /// A signal of this name.
    Signal(&'static str),
    /// A token of the program.
    Token,
    /// A server ended by itself.
    Ended,
    /// A step of the start failed.
    Failed,
}

impl Report {
    /// Whether every step is complete or was not needed, and no connection was aborted.
    pub fn is_clean(&self) -> bool {
        let mut outcomes = self.steps.iter().map(|report| &report.outcome);
        self.n_aborted == 0
            && outcomes.all(|it| matches!(it, Outcome::Done | Outcome::Skipped(NOT_NEEDED)))
    }
}

impl LifecycleError {
    pub(crate) fn new(step: Step, cause: BoxError, report: Report) -> Self {
        Self(Box::new(Inner { step, cause, report }))
    }

    /// Returns the report of all steps.
    pub fn report(&self) -> &Report {
        &self.0.report
    }
}

impl fmt::Display for Report {
    /// `stopped by SIGTERM: serve done, ready done, register done in 3ms, …, 2 connections
    /// aborted`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped by {}: ", self.reason)?;
        for (n, StepReport { step, outcome, took }) in self.steps.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{step} {outcome}")?;
            let took = Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            match (step, took) {
                (_, Duration::ZERO) => {}
                (Step::Live, took) => write!(f, " after {took:?}")?,
                (_, took) => write!(f, " in {took:?}")?,
            }
        }
        match self.n_aborted {
            0 => Ok(()),
            n => write!(f, ", {n} connections aborted"),
        }
    }
}

impl fmt::Debug for LifecycleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&chain(self), f)
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
            Self::Skipped(reason) => write!(f, "skipped ({reason})"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Failed(error) => write!(f, "failed ({})", chain(&**error)),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(name) => f.write_str(name),
            Self::Token => f.write_str("the program"),
            Self::Ended => f.write_str("the end of a server"),
            Self::Failed => f.write_str("a failure"),
        }
    }
}

pub(crate) const NOT_NEEDED: &str = "not needed";
pub(crate) const HURRIED: &str = "second order to stop";
