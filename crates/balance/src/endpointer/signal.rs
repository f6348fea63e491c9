//! What goes between the request path, the worker and its runs.

use std::{
    error::Error,
    fmt, io,
    iter::successors,
    task::{Context, Poll},
    time::Duration,
};

use tower_sd_core::{BoxError, Instance, InstanceId};

use super::ActiveCheck;
use crate::{NotServing, error::Failure};

/// Polls a service's readiness. A function pointer does not name the request's type, which may
/// borrow.
pub(crate) type PollReady<S> = fn(&mut S, &mut Context<'_>) -> Poll<Result<(), BoxError>>;

/// What a request has found out about an endpoint. Each endpoint has one at most on its way to the
/// worker, and one wish.
pub(crate) enum Signal<S> {
    /// Its readiness was pending with nothing in flight, and is ready now.
    Connected,
    /// Its readiness is pending with nothing in flight; the service has begun to connect, and its
    /// request is gone.
    Pending(S, PollReady<S>),
    /// Its readiness has failed.
    Refused(Failure, PollReady<S>),
    /// It is down, and a request has nothing better.
    Wanted(PollReady<S>),
}

/// One run of the factory.
#[derive(Clone, Debug)]
pub(super) struct Make {
    pub(super) instance: Instance,
    pub(super) run: u64,
}

/// A new service, whether it takes the guards of its requests, and its active checks.
pub(super) struct Created<S> {
    pub(super) service: S,
    pub(super) takes_guards: bool,
    pub(super) check: Option<ActiveCheck>,
}

/// One attempt to connect.
pub(super) struct Probe<S> {
    pub(super) id: InstanceId,
    pub(super) key: u64,
    pub(super) service: S,
    pub(super) poll_ready: PollReady<S>,
}

/// Why a probe has not connected.
#[derive(Debug)]
pub(super) enum Unready {
    Refused(Failure),
    Late(Duration),
}

impl<S> Signal<S> {
    pub(super) fn into_service(self) -> Option<S> {
        match self {
            Self::Pending(service, _) => Some(service),
            Self::Connected | Self::Refused(..) | Self::Wanted(_) => None,
        }
    }
}

impl Unready {
    /// Whether the service may be dead for good: one that reports that it does not serve is not.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(failure) => !sources(failure).any(<dyn Error>::is::<NotServing>),
            Self::Late(_) => false,
        }
    }

    /// Whether it is the instance that refuses. Most failures of the operating system are the
    /// client's own: no descriptor, no route, a name that does not resolve.
    pub(super) fn is_closed(&self) -> bool {
        let Self::Refused(failure) = self else {
            return false;
        };
        let system = sources(failure).find_map(|error| error.downcast_ref::<io::Error>());
        self.is_refusal()
            && system.is_none_or(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Refused(failure) => failure,
            Self::Late(_) => Failure::new(self.to_string().into()),
        }
    }
}

fn sources(failure: &Failure) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = failure.cause();
    successors(Some(first), |error| (*error).source())
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Late(bound) => write!(f, "not ready within {bound:?}"),
        }
    }
}
