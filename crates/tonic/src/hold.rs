use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tonic::{Code, Status};
use tower_sd_balance::{InFlight, Outcome};

use crate::{code, deadline::Deadline};

/// The body of an answer, which keeps its endpoint busy until its status.
///
/// The status is in the headers, in the trailers, or the answer failed or was dropped. One that
/// ends without is UNKNOWN.
///
/// A stream is load for as long as it is open. A status by which the instance is in trouble
/// (UNAVAILABLE, INTERNAL, UNKNOWN, DATA_LOSS) counts as its failure, and DEADLINE_EXCEEDED as a
/// time-out; any other is the caller's. So is a time-out by the [caller's](InFlight::caller)
/// deadline, and one that is found by a reader for which a message was ready each time.
#[pin_project]
#[derive(Debug)]
pub struct InFlightBody<B> {
    #[pin]
    body: B,
    lease: Option<InFlight>,
    deadline: Option<Deadline>,
    /// What an end is that brings no status.
    at_end: Outcome,
    /// The last poll has found nothing.
    waits: bool,
}

/// Ties the lease to the answer, whose extensions get a [`Served`](tower_sd_balance::Served), or
/// releases it.
pub(crate) fn leased<B: Body>(
    result: Result<Response<B>, Status>,
    lease: Option<InFlight>,
    deadline: Option<Deadline>,
) -> Result<Response<InFlightBody<B>>, Status> {
    let hold = |body, lease, at_end| InFlightBody { body, lease, deadline, at_end, waits: false };
    let Some(mut lease) = lease else {
        return result.map(|response| response.map(|body| hold(body, None, Outcome::Success)));
    };
    let judge = |outcome| Deadline::judge(deadline.as_ref(), outcome);
    let mut response = match result {
        Ok(response) => response,
        Err(status) => {
            lease.done(judge(code::outcome_of_status(&status)));
            return Err(status);
        }
    };
    lease.responded();
    response.extensions_mut().insert(lease.served());
    let known = code::known_code(&response).map(code::outcome_of);
    let at_end = known.unwrap_or_else(|| code::outcome_of(Code::Unknown));
    Ok(response.map(|body| {
        let is_failure = known.is_some_and(|outcome| outcome != Outcome::Success);
        if is_failure || body.is_end_stream() {
            lease.done(judge(at_end));
            return hold(body, None, at_end);
        }
        hold(body, Some(lease), at_end)
    }))
}

impl<B: Body<Error = Status>> Body for InFlightBody<B> {
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
        let outcome = match &frame {
            Some(Ok(frame)) => match frame.trailers_ref() {
                Some(trailers) => Some(code::code(trailers).map_or(*this.at_end, code::outcome_of)),
                None => this.body.is_end_stream().then_some(*this.at_end),
            },
            Some(Err(status)) => Some(match code::outcome_of_status(status) {
                Outcome::TimedOut if !has_waited => Outcome::Cancelled,
                outcome => outcome,
            }),
            None => Some(*this.at_end),
        };
        if let Some(outcome) = outcome
            && let Some(lease) = this.lease.take()
        {
            lease.done(Deadline::judge(this.deadline.as_ref(), outcome));
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

impl<B: Default> Default for InFlightBody<B> {
    /// A body that holds nothing: what an interceptor's refusal is made of.
    fn default() -> Self {
        Self {
            body: B::default(),
            lease: None,
            deadline: None,
            at_end: Outcome::Success,
            waits: false,
        }
    }
}
