use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::time::timeout;

use super::reporter::Reporter;
use crate::{Error, ErrorKind, Result};

/// Why a call of the announcer has no result.
pub(super) enum Failure {
    Error(Error),
    Elapsed,
    Panicked,
}

/// Runs a call of the announcer for at most `bound`; a panic is a failure like others.
pub(super) async fn bounded<T>(
    bound: Duration,
    call: impl Future<Output = Result<T>>,
) -> Result<T, Failure> {
    match timeout(bound, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(answer)) => answer.map_err(Failure::Error),
        Ok(Err(_panic)) => Err(Failure::Panicked),
        Err(_elapsed) => Err(Failure::Elapsed),
    }
}

impl Failure {
    pub(super) fn into_error(self, report: &Reporter, operation: &'static str) -> Error {
        match self {
            Self::Error(error) => error,
            Self::Elapsed => report.error(ErrorKind::Timeout, operation),
            Self::Panicked => report.panicked(operation),
        }
    }
}
