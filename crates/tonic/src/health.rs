//! The health of an instance, as its stream reports it.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};
use tokio_util::sync::DropGuard;
use tonic::Status;

/// The health that one instance reports. Its stream ends with it.
#[derive(Debug)]
pub(crate) struct Health {
    answers: watch::Receiver<Answer>,
    _stop: DropGuard,
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Connecting,
    /// The connection is there, and the stream's first message is not.
    Connected,
    Serving,
    NotServing(Status),
}

impl Health {
    pub(crate) fn new(answers: watch::Receiver<Answer>, stop: DropGuard) -> Self {
        Self { answers, _stop: stop }
    }

    /// Waits for the first answer, for [`PATIENCE`] at most after the connection.
    pub(crate) async fn first_answer(&self) -> Result<(), Status> {
        let mut answers = self.answers.clone();
        // Within the connect timeout: it ends with a status.
        drop(answers.wait_for(|answer| !matches!(answer, Answer::Connecting)).await);
        let answered = answers.wait_for(|answer| !answer.is_missing());
        match timeout(PATIENCE, answered).await {
            Ok(_) | Err(_) => self.check(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Status> {
        match &*self.answers.borrow() {
            Answer::Connecting | Answer::Connected => {
                Err(Status::unavailable("the instance does not answer its health check"))
            }
            Answer::NotServing(status) => Err(status.clone()),
            Answer::Serving => Ok(()),
        }
    }
}

impl Answer {
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Connecting | Self::Connected)
    }
}

/// How long an instance may take for its first answer: as long as for a connection by default.
const PATIENCE: Duration = Duration::from_secs(1);
