//! How many connects run.

use tokio::time::Instant;

use crate::HttpVersion;

/// How many connects may run.
pub(super) struct DialWindow {
    pub(super) n_running: usize,
    /// Grows with each success, as TCP's congestion window does: an instance that accepts nothing
    /// is dialled by few.
    pub(super) window: usize,
    /// The last choice of a server that was offered one.
    pub(super) chosen: Option<HttpVersion>,
    /// Whether a connection was opened, or a place became free, since a dial failed.
    pub(super) is_alive: bool,
    /// A limit has refused one, which is tried again at this moment.
    pub(super) limited_until: Option<Instant>,
}

impl DialWindow {
    pub(super) fn new() -> Self {
        Self { n_running: 0, window: WINDOW, chosen: None, is_alive: false, limited_until: None }
    }

    /// No request has waited before.
    pub(super) fn begin_burst(&mut self) {
        self.window = self.window.min(WINDOW);
    }

    pub(super) fn succeeded(&mut self, protocol: HttpVersion) {
        self.n_running -= 1;
        self.window = (self.window + 1).min(MAX_WINDOW);
        self.chosen = Some(protocol);
        self.is_alive = true;
    }
}

/// At the beginning of a burst, as many as two senders of TCP would begin with (RFC 5681: two to
/// four segments).
const WINDOW: usize = 4;

/// More would only fill the backlog of the instance.
const MAX_WINDOW: usize = 32;
