use std::{fmt, future::Future};

use async_trait::async_trait;

/// A server's report of its own health.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "Consul's three states, which every backend has to map"
)]
pub enum CheckResult {
    /// All is well.
    Passing,
    /// Works, with a complaint.
    Warning(String),
    /// Does not work, and why.
    Critical(String),
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passing => f.write_str("passing"),
            Self::Warning(reason) => write!(f, "warning: {reason}"),
            Self::Critical(reason) => write!(f, "critical: {reason}"),
        }
    }
}

/// A server's own check, run before every renewal of its registration.
///
/// Implemented for closures that return a future. One that captures gives each future a clone of
/// what it needs:
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering::Relaxed}};
/// use tower_sd::discovery::CheckResult;
/// use tower_sd::{Instance, Registration};
///
/// let database_answers = Arc::new(AtomicBool::new(true));
/// let registration = Registration::new("arithmetic", Instance::new("127.0.0.1", 8081)).health(move || {
///     let database_answers = Arc::clone(&database_answers);
///     async move {
///         match database_answers.load(Relaxed) {
///             true => CheckResult::Passing,
///             false => CheckResult::Critical("no database".into()),
///         }
///     }
/// });
/// # drop(registration);
/// ```
#[async_trait]
pub trait HealthCheck: Send + Sync + 'static {
    /// Checks now. A check that hangs or panics counts as critical.
    ///
    /// # Cancel safety
    ///
    /// Has to be cancel safe: the loop drops it at its bound and at deregistration.
    async fn check(&self) -> CheckResult;
}

#[async_trait]
impl<F, Fut> HealthCheck for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = CheckResult> + Send,
{
    async fn check(&self) -> CheckResult {
        self().await
    }
}
