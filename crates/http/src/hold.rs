use std::{
    error::Error,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project::{pin_project, pinned_drop};
use tower_sd_balance::{CallerDeadline, FailureClass, InFlight, Outcome};

use crate::{HttpError, pool::Upload, protocol::outcome_of};

/// A response body that keeps its endpoint busy until it has ended.
///
/// It has ended when it was read to its end, has failed, or was dropped; and not before the
/// request's own body has been sent. One that is dropped while a part of it is waited for is a
/// cancelled request; otherwise the status has decided the outcome. A time-out is the instance's
/// only when a part of the body was waited for, and none of the request's own; and by a deadline
/// that is not the [caller's](InFlight::caller).
#[pin_project(PinnedDrop)]
#[derive(Debug)]
pub struct InFlightBody<B> {
    #[pin]
    body: B,
    lease: Option<InFlight>,
    upload: Option<Upload>,
    /// By the status.
    outcome: Outcome,
    /// The last poll has found nothing.
    waits: bool,
}

/// Ties the lease to the response, whose extensions get a [`Served`](tower_sd_balance::Served).
pub(crate) fn leased<B: Body>(
    mut response: Response<B>,
    mut lease: Option<InFlight>,
    upload: Option<Upload>,
) -> Response<InFlightBody<B>> {
    let mut outcome = outcome_of(Ok(response.status()));
    if let Some(lease) = &mut lease {
        let caller = lease.caller().filter(CallerDeadline::is_over);
        if caller.is_some() && response.status() == StatusCode::GATEWAY_TIMEOUT {
            outcome = Outcome::Cancelled;
        }
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS => lease.rejected(),
            status if outcome == Outcome::Success && status.as_u16() >= 400 => lease.unmeasured(),
            _ => lease.responded(),
        }
        response.extensions_mut().insert(lease.served());
    }
    response.map(|body| {
        let is_over = body.is_end_stream();
        let mut leased = InFlightBody { body, lease, upload, outcome, waits: false };
        if is_over {
            end(&mut leased.lease, &mut leased.upload, outcome);
        }
        leased
    })
}

/// Releases the lease of a request without a response.
pub(crate) fn released(error: HttpError, lease: Option<InFlight>) -> HttpError {
    match lease {
        Some(lease) if error.is_going_away() => lease.not_taken(),
        Some(lease) => lease.done(error.outcome()),
        None => {}
    }
    error
}

/// The lease of a request that has no response yet.
pub(crate) struct Unanswered {
    pub(crate) lease: Option<InFlight>,
    pub(crate) upload: Option<Upload>,
}

impl Unanswered {
    /// Whether its sender is waited for.
    pub(crate) fn waits(&self) -> bool {
        self.upload.as_ref().is_some_and(Upload::waits)
    }
}

impl Drop for Unanswered {
    /// The time that its sender takes is no fault of the instance.
    fn drop(&mut self) {
        if self.waits()
            && let Some(lease) = self.lease.take()
        {
            lease.done(Outcome::Cancelled);
        }
    }
}

/// An answer may come before the end of the request.
fn end(lease: &mut Option<InFlight>, upload: &mut Option<Upload>, outcome: Outcome) {
    let Some(lease) = lease.take() else {
        return;
    };
    match upload.take() {
        Some(upload) => upload.park(Sending { lease: Some(lease), outcome }),
        None => lease.done(outcome),
    }
}

/// The lease of a request whose body is still sent.
struct Sending {
    lease: Option<InFlight>,
    outcome: Outcome,
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.done(self.outcome);
        }
    }
}

impl<B: Body<Error: Error + 'static>> Body for InFlightBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let polled = this.body.as_mut().poll_frame(cx);
        let has_waited = mem::replace(this.waits, polled.is_pending());
        let frame = ready!(polled);
        match &frame {
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Err(error)) => {
                if let Some(lease) = this.lease.take() {
                    let outcome = HttpError::find(error).map_or(BROKEN, HttpError::outcome);
                    let caller = lease.caller().filter(|caller| !caller.is_to_head());
                    let is_no_fault = caller.is_some_and(|caller| caller.is_over())
                        || this.upload.as_ref().is_some_and(Upload::waits);
                    let outcome = match outcome {
                        Outcome::TimedOut if is_no_fault => Outcome::Cancelled,
                        // The reader was slow: it has found a frame each time.
                        Outcome::TimedOut if !has_waited => *this.outcome,
                        outcome => outcome,
                    };
                    lease.done(outcome);
                }
            }
            Some(Ok(_)) | None => end(this.lease, this.upload, *this.outcome),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[pinned_drop]
impl<B> PinnedDrop for InFlightBody<B> {
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        if !*this.waits || *this.outcome != Outcome::Success {
            end(this.lease, this.upload, *this.outcome);
        }
    }
}

impl<B: Default> Default for InFlightBody<B> {
    /// A body that holds nothing; generated gRPC clients need it.
    fn default() -> Self {
        let outcome = Outcome::Success;
        Self { body: B::default(), lease: None, upload: None, outcome, waits: false }
    }
}

const BROKEN: Outcome = Outcome::Failed(FailureClass::Exchange);
