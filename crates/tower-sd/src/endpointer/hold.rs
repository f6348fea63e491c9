use crate::Lease;

/// How long a response keeps its endpoint busy.
///
/// A choice of type, made where the protocol is known (the [`Factory`](crate::Factory)), so that nobody can forget it
/// where the balancer is built. A response that streams its body carries the lease along and lets go of it when the body
/// has ended; one that is complete does not need it any more.
pub trait Hold<R>: 'static {
    /// The response that the caller gets.
    type Held;

    /// Ties `lease` to `response`, or lets go of it.
    fn hold(response: R, lease: Lease) -> Self::Held;
}

/// The request ends with its response: right for plain requests, and the default.
#[derive(Debug)]
#[non_exhaustive]
pub enum ToResponse {}

impl<R> Hold<R> for ToResponse {
    type Held = R;

    fn hold(response: R, _lease: Lease) -> R {
        response
    }
}
