//! `grpc-timeout`: how long a call may take.
//!
//! All attempts and the whole answer are included.

use std::time::Duration;

use http::{HeaderMap, Request};
use tokio::time::Instant;
use tonic::{Code, Status};
use tower_sd_balance::CallerDeadline;
use tower_sd_http::grpc_timeout;

/// When a call's time is over. As an extension of a request it was set by who saw the call begin;
/// the header counts anew with each attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    granted: Duration,
    /// Of the request that the caller of this client is serving.
    is_callers: bool,
}

impl Deadline {
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        let begun = request.extensions().get::<Self>().copied();
        begun.or_else(|| Self::from_headers(request.headers()))
    }

    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let granted = grpc_timeout::parse(headers.get(grpc_timeout::NAME)?.to_str().ok()?)?;
        Some(Self { at: Instant::now().checked_add(granted)?, granted, is_callers: false })
    }

    /// The earlier of a call's deadline and `at`, which may be that of the caller.
    pub(crate) fn before(
        deadline: Option<Self>,
        at: Option<Instant>,
        caller: Option<CallerDeadline>,
    ) -> Option<Self> {
        match (deadline, at) {
            (Some(deadline), Some(at)) if deadline.at <= at => Some(deadline),
            (deadline, None) => deadline,
            (_, Some(at)) => {
                let granted = at.saturating_duration_since(Instant::now());
                let is_callers = caller.is_some_and(|caller| caller.at() == at);
                Some(Self { at, granted, is_callers })
            }
        }
    }

    /// Whether the caller's haste ends the call: that is no fault of its instance.
    pub(crate) fn is_over_for_caller(&self) -> bool {
        self.is_callers && self.is_over()
    }

    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// The server's count of it may end a little earlier: what it was sent is rounded down.
    pub(crate) fn is_over(&self) -> bool {
        self.at <= Instant::now() + ROUNDED
    }

    /// Whether it is the reason for an end with `code`: at the deadline, servers cancel the call.
    pub(crate) fn explains(&self, code: Option<Code>) -> bool {
        code == Some(Code::Cancelled) && self.is_over()
    }

    /// Sends the server the rest of it.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(
            grpc_timeout::NAME,
            grpc_timeout::format(self.at.saturating_duration_since(Instant::now())),
        );
    }

    pub(crate) fn status(&self) -> Status {
        Status::deadline_exceeded(format!("no end within {:?}", self.granted))
    }
}

/// Milliseconds are sent of more than 100 s.
const ROUNDED: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deadline_that_was_set_before_counts_and_not_the_header() {
        let mut request = Request::new(());
        request.headers_mut().insert(grpc_timeout::NAME, HeaderValue::from_static("2S"));
        let deadline = Deadline::of(&request).expect("a deadline");
        request.extensions_mut().insert(deadline);
        tokio::time::advance(Duration::from_millis(500)).await;
        let again = Deadline::of(&request).expect("a deadline");
        again.write(request.headers_mut());
        assert_eq!(request.headers()[grpc_timeout::NAME], "1500000u");
        assert!(!again.is_over());
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert!(again.is_over());
    }
}
