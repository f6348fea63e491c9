//! Data above the limit of the servers, which end the shared connection.

use std::time::Duration;

use tokio::time::Instant;

/// Data whose writes were not answered.
#[derive(Debug, Default)]
pub(super) struct TooLarge {
    data: Vec<u8>,
    n_unanswered: u32,
    last: Option<Instant>,
}

impl TooLarge {
    /// Whether these data have ended the connection twice, and not long ago.
    pub(super) fn is(&self, data: &[u8]) -> bool {
        self.n_unanswered >= 2
            && self.data == data
            && self.last.is_some_and(|last| last.elapsed() < PAUSE)
    }

    /// A write of these data was answered, or not.
    pub(super) fn written(&mut self, data: &[u8], is_unanswered: bool) {
        if !is_unanswered {
            *self = Self::default();
            return;
        }
        if self.data != data {
            *self = Self { data: data.to_vec(), ..Self::default() };
        }
        self.n_unanswered += 1;
        self.last = Some(Instant::now());
    }
}

/// The servers may have got another limit.
const PAUSE: Duration = Duration::from_secs(300);
