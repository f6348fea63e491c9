use std::{future::pending, io};

use tokio_util::sync::CancellationToken;

use crate::{Reason, Signals};

/// Where the order to stop comes from, and the second one, which is in a hurry.
#[derive(Debug)]
pub(crate) struct Orders {
    signals: Option<Signals>,
    stop: CancellationToken,
    now: CancellationToken,
}

/// What a lifecycle is told about them.
#[derive(Clone, Debug, Default)]
pub(crate) struct OrdersConfig {
    pub(crate) ignore_signals: bool,
    pub(crate) stop: CancellationToken,
    pub(crate) now: CancellationToken,
}

impl Orders {
    pub(crate) fn new(config: OrdersConfig) -> io::Result<Self> {
        let OrdersConfig { ignore_signals, stop, now } = config;
        let signals = if ignore_signals { None } else { Some(Signals::listen()?) };
        Ok(Self { signals, stop, now })
    }

    /// The first one. Cancel safe.
    pub(crate) async fn stop(&mut self) -> Reason {
        let (stop, now) = (self.stop.clone(), self.now.clone());
        tokio::select! {
            () = stop.cancelled() => Reason::Token,
            () = now.cancelled() => Reason::Token,
            reason = self.signal() => reason,
        }
    }

    /// The second one: a signal after the first order, or the token for that. Cancel safe.
    pub(crate) async fn now(&mut self) {
        let now = self.now.clone();
        tokio::select! {
            () = now.cancelled() => {}
            _second = self.signal() => {}
        }
    }

    async fn signal(&mut self) -> Reason {
        match &mut self.signals {
            Some(signals) => Reason::Signal(signals.recv().await),
            None => pending().await,
        }
    }
}
