use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};
use tower_sd_balance::CallerDeadline;

/// What the services of one layer have seen.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) late: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) malformed: AtomicU64,
}

/// Fires at a deadline.
#[derive(Debug)]
pub(super) struct Timer {
    deadline: CallerDeadline,
    sleep: Pin<Box<Sleep>>,
}

impl Counters {
    pub(super) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Relaxed);
    }
}

impl Timer {
    pub(super) fn new(deadline: CallerDeadline) -> Self {
        Self { deadline, sleep: Box::pin(sleep_until(deadline.at())) }
    }

    pub(super) fn deadline(&self) -> CallerDeadline {
        self.deadline
    }

    pub(super) fn is_over(&self) -> bool {
        self.deadline.at() <= Instant::now()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }
}
