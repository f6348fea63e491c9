use std::mem;

use crate::error::Failure;

/// What an endpoint has of its active checks.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Why they fail, while they do.
    failure: Option<Failure>,
    /// The number of its service: the checks of an earlier one do not count.
    service: u64,
}

impl Checked {
    /// Another service begins: its number, and the failure of the one before.
    pub(super) fn begin(&mut self) -> (u64, Option<Failure>) {
        self.service += 1;
        (self.service, self.failure.clone())
    }

    /// Whether it fails now, or did before.
    pub(super) fn set(&mut self, service: u64, failure: Option<Failure>) -> bool {
        let fails = failure.is_some();
        service == self.service && (mem::replace(&mut self.failure, failure).is_some() || fails)
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.clone()
    }
}
