use std::time::Duration;

use tower_sd_core::BoxError;

use super::Verdict;

/// How [`Retry`](crate::Retry) sends a request a second time, and what it takes for a failure.
///
/// The HTTP crate brings one that knows methods and bodies; for every other request that is `Clone` there is [`Cloned`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not know how to send a `{Req}` a second time",
    note = "`Cloned` repeats every request that is `Clone`; HTTP requests want `HttpReplay` of tower-sd-http"
)]
pub trait Replay<Req> {
    /// A copy of `request`, made before the first is sent. `None`: this one cannot be repeated.
    fn replay(&self, request: &Req) -> Option<Req>;

    /// Whether `copy` can still be sent, asked when its turn has come. Default: yes.
    ///
    /// A body that is streamed is kept up to a bound: it may have passed it since the copy was made.
    fn is_repeatable(&self, _copy: &Req) -> bool {
        true
    }

    /// Whether sending `request` twice does what sending it once does. Default: nobody knows, so no.
    ///
    /// A request that was never sent is repeated all the same.
    fn is_idempotent(&self, _request: &Req) -> bool {
        false
    }
}

/// What [`Retry`](crate::Retry) makes of an outcome.
pub trait Classify<Res> {
    /// Judges what came back.
    fn classify(&self, outcome: Result<&Res, &BoxError>) -> Verdict;

    /// How long the peer has asked to wait before `response` is answered by another attempt. Default: nothing, so that the
    /// policy's pauses apply.
    fn pause(&self, _response: &Res) -> Option<Duration> {
        None
    }
}

/// Repeats by `Clone`, and takes every error for a failure and every response for a success.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Cloned;

impl<Req: Clone> Replay<Req> for Cloned {
    fn replay(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

impl<Res> Classify<Res> for Cloned {
    fn classify(&self, outcome: Result<&Res, &BoxError>) -> Verdict {
        match outcome {
            Ok(_) => Verdict::Final,
            Err(error) => Verdict::of_error(error),
        }
    }
}
