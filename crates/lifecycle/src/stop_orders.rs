use std::{future::pending, io, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{report::Reason, signals::Signals};

/// The orders to stop: the first one, and those in a hurry after it.
#[derive(Debug)]
pub(crate) struct StopOrders {
    signals: Option<Signals>,
    stop: CancellationToken,
    /// `None` after it has counted.
    now: Option<CancellationToken>,
    /// The time of the last order.
    last: Option<Instant>,
    /// A signal has stopped the life, or everything is in a hurry already: the next one counts.
    is_counting: bool,
}

/// The settings of [`StopOrders`].
#[derive(Clone, Debug, Default)]
pub(crate) struct StopOrdersConfig {
    pub(crate) ignore_signals: bool,
    pub(crate) stop: CancellationToken,
    pub(crate) now: CancellationToken,
}

impl StopOrders {
    pub(crate) fn new(config: StopOrdersConfig) -> io::Result<Self> {
        let StopOrdersConfig { ignore_signals, stop, now } = config;
        let signals = if ignore_signals { None } else { Some(Signals::listen()?) };
        Ok(Self { signals, stop, now: Some(now), last: None, is_counting: false })
    }

    /// Waits for the first order. Cancel safe.
    pub(crate) async fn stop(&mut self) -> Reason {
        let (stop, now) = (self.stop.clone(), self.now.clone());
        let reason = tokio::select! {
            () = stop.cancelled() => Reason::Token,
            () = cancelled(now.as_ref()) => Reason::Token,
            reason = self.signal() => reason,
        };
        self.last = Some(Instant::now());
        self.is_counting = matches!(reason, Reason::Signal(_));
        reason
    }

    /// Waits for an order in a hurry: another signal, or the token for that. Cancel safe.
    pub(crate) async fn now(&mut self) {
        let now = self.now.clone();
        loop {
            let is_another = tokio::select! {
                () = cancelled(now.as_ref()) => {
                    self.now = None;
                    true
                }
                _signal = self.signal() => self.is_counting,
            };
            self.last = Some(Instant::now());
            self.is_counting = true;
            // The first signal after the program's own order, or after the end of a server.
            if is_another {
                return;
            }
        }
    }

    /// A shell signals the whole group, and a supervisor forwards that signal: both are one.
    async fn signal(&mut self) -> Reason {
        let Some(signals) = &mut self.signals else { return pending().await };
        loop {
            let signal = signals.recv().await;
            match self.last {
                Some(last) if self.is_counting && last.elapsed() < SAME_SIGNAL => {
                    tracing::debug!(signal, "signal repeated: taken for the same one");
                }
                _ => return Reason::Signal(signal),
            }
        }
    }
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => pending().await,
    }
}

/// Forwarding takes milliseconds; a second signal by hand takes longer.
const SAME_SIGNAL: Duration = Duration::from_secs(1);
