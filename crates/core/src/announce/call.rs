use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::time::timeout;

use super::reporter::Reporter;
use crate::{ErrorKind, Result};

/// Runs a call of the announcer for at most `bound`; a panic is an error like others.
///
/// A call that is not an `async fn` may panic before it returns its future: so it belongs into an
/// `async` block.
pub(super) async fn bounded<T>(
    report: &Reporter,
    operation: &'static str,
    bound: Duration,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    match timeout(bound, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_panic)) => Err(report.panicked(operation)),
        Err(_elapsed) => Err(report.error(ErrorKind::Timeout, operation)),
    }
}
