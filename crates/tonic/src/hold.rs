use std::{
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tonic::{Code, Status};
use tower_sd_balance::{InFlight, Outcome};
use tower_sd_http::HttpError;

use crate::{code, deadline::Deadline};

/// The body of an answer, which keeps its endpoint busy until its status.
///
/// The status is in the headers, in the trailers, or the answer failed or was dropped. One that
/// ends without is UNKNOWN.
///
/// A stream is load for as long as it is open. A status by which the instance is in trouble
/// (UNAVAILABLE, INTERNAL, UNKNOWN, DATA_LOSS) counts as its failure, and DEADLINE_EXCEEDED as a
/// time-out; any other is the caller's. So is a time-out by the [caller's](InFlight::caller)
/// deadline, or while a message of the caller is waited for. It is also the caller's when a message
/// was ready for the reader each time.
#[pin_project]
#[derive(Debug)]
pub struct InFlightBody<B> {
    #[pin]
    body: B,
    call: Call,
    /// What an end is that brings no status.
    at_end: Code,
    /// The last poll has found nothing.
    waits: bool,
}

/// The lease of a call, and what decides whether its end is the caller's.
#[derive(Debug, Default)]
pub(crate) struct Call {
    lease: Option<InFlight>,
    deadline: Option<Deadline>,
    sender: Sender,
}

/// Whether the sender of a request's body is waited for.
#[derive(Clone, Debug, Default)]
struct Sender(Arc<AtomicBool>);

/// A request's body on its way.
#[pin_project]
struct Sending<B> {
    #[pin]
    body: B,
    sender: Sender,
}

impl Call {
    /// One that sends the body, which is returned.
    pub(crate) fn new<B>(
        lease: Option<InFlight>,
        deadline: Option<Deadline>,
        body: B,
    ) -> (Self, impl Body<Data = B::Data, Error = B::Error>)
    where
        B: Body,
    {
        let sender = Sender::default();
        (Self { lease, deadline, sender: sender.clone() }, Sending { body, sender })
    }

    fn done(&mut self, outcome: Outcome) {
        let is_callers = self.deadline.as_ref().is_some_and(Deadline::is_over_for_caller);
        if let Some(lease) = self.lease.take() {
            lease.done(match outcome {
                Outcome::TimedOut if is_callers || self.sender.is_waited_for() => {
                    Outcome::Cancelled
                }
                outcome => outcome,
            });
        }
    }

    /// There is no answer.
    fn failed(&mut self, status: &Status) {
        let is_going_away = HttpError::find(status).is_some_and(HttpError::is_going_away);
        match self.lease.take_if(|_| is_going_away) {
            Some(lease) => lease.not_taken(),
            None => self.done(code::outcome_of_status(status)),
        }
    }

    /// The call has ended with this code.
    fn ended(&mut self, code: Code) {
        let outcome = code::outcome_of(code);
        match &mut self.lease {
            Some(lease) if code == Code::ResourceExhausted => lease.rejected(),
            Some(lease) if outcome == Outcome::Success && code != Code::Ok => lease.unmeasured(),
            _ => {}
        }
        self.done(outcome);
    }

    /// Ties the lease to the answer, whose extensions get a
    /// [`Served`](tower_sd_balance::Served), or releases it.
    pub(crate) fn answered<B: Body>(
        mut self,
        result: Result<Response<B>, Status>,
    ) -> Result<Response<InFlightBody<B>>, Status> {
        let mut response = result.inspect_err(|status| self.failed(status))?;
        if let Some(lease) = &mut self.lease {
            lease.responded();
            response.extensions_mut().insert(lease.served());
        }
        let known = code::known_code(&response);
        let at_end = known.unwrap_or(Code::Unknown);
        let is_failure = known.is_some_and(|code| code::outcome_of(code) != Outcome::Success);
        Ok(response.map(|body| {
            if is_failure || body.is_end_stream() {
                self.ended(at_end);
            }
            InFlightBody { body, call: self, at_end, waits: false }
        }))
    }
}

impl Drop for Call {
    /// The time that its sender takes is no fault of the instance.
    fn drop(&mut self) {
        if self.sender.is_waited_for() {
            self.done(Outcome::Cancelled);
        }
    }
}

impl Sender {
    fn is_waited_for(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl<B: Body> Body for Sending<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let polled = this.body.poll_frame(cx);
        this.sender.0.store(polled.is_pending(), Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
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
        match &frame {
            Some(Ok(frame)) => match frame.trailers_ref() {
                Some(trailers) => this.call.ended(code::code(trailers).unwrap_or(*this.at_end)),
                None if this.body.is_end_stream() => this.call.ended(*this.at_end),
                None => {}
            },
            Some(Err(status)) => this.call.done(match code::outcome_of_status(status) {
                Outcome::TimedOut if !has_waited => Outcome::Cancelled,
                outcome => outcome,
            }),
            None => this.call.ended(*this.at_end),
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
        let (body, call) = (B::default(), Call::default());
        Self { body, call, at_end: Code::Ok, waits: false }
    }
}
