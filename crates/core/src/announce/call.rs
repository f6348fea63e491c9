use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::time::timeout;

use super::reporter::Reporter;
use crate::{ErrorKind, Result};

/// Runs a call of the announcer for at most `bound`; a panic is an error like others, also one
/// before the call has returned its future.
pub(super) async fn bounded<T, F: Future<Output = Result<T>>>(
    report: &Reporter,
    operation: &'static str,
    bound: Duration,
    call: impl FnOnce() -> F,
) -> Result<T> {
    let call = async { call().await };
    match timeout(bound, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_panic)) => Err(report.panicked(operation)),
        Err(_elapsed) => Err(report.error(ErrorKind::Timeout, operation)),
    }
}
