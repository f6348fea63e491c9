//! What goes between the request path, the worker and its runs.

use std::{
    error::Error,
    io,
    task::{Context, Poll},
    time::Duration,
};

use tower_sd_core::{BoxError, Instance, InstanceId, causes};

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
    Pending(S),
    /// Its readiness has failed.
    Refused(Failure),
    /// It is down, and a request has nothing better.
    Wanted,
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

/// How the last probes have failed.
#[derive(Debug, Default)]
pub(super) struct Streaks {
    /// Since the last success.
    refused: u32,
    /// In a row.
    closed: u32,
    /// In a row.
    late: u32,
}

impl Streaks {
    pub(super) fn add(&mut self, unready: &Unready) {
        let add = |n: u32, ends_so: bool| if ends_so { n + 1 } else { 0 };
        self.refused += u32::from(unready.is_refusal());
        self.closed = add(self.closed, unready.is_closed());
        self.late = add(self.late, matches!(unready, Unready::Late(_)));
    }

    /// Whether it is the instance that refuses, again and again.
    pub(super) fn is_closed(&self) -> bool {
        self.closed >= REMAKE_AFTER
    }

    /// Whether the service may be dead for good after the last failure, which was `unready`.
    ///
    /// By tower's contract it may be when its readiness fails; one whose readiness is pending may
    /// have lost the task that connects.
    pub(super) fn is_dead(&self, unready: &Unready) -> bool {
        match unready {
            Unready::Refused(_) => {
                unready.is_refusal() && self.refused.is_multiple_of(REMAKE_AFTER)
            }
            Unready::Late(_) => self.late.is_multiple_of(REMAKE_LATE_AFTER),
        }
    }
}

impl Unready {
    /// A service that reports that it does not serve is no dead one.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(failure) => !causes(failure.cause()).any(<dyn Error>::is::<NotServing>),
            Self::Late(_) => false,
        }
    }

    /// Whether the instance refuses connections. Most other failures are the client's own: no
    /// descriptor, no route, a name that does not resolve, packets that are dropped.
    fn is_closed(&self) -> bool {
        let Self::Refused(failure) = self else {
            return false;
        };
        let causes = causes(failure.cause());
        let mut system = causes.filter_map(|error| error.downcast_ref::<io::Error>());
        system.any(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Refused(failure) => failure,
            Self::Late(bound) => Failure::new(format!("not ready within {bound:?}").into()),
        }
    }
}

/// As many refusals as a restart of a server usually costs.
const REMAKE_AFTER: u32 = 3;
/// 10 s and their pauses, 30 s in all: a service that is merely slow has connected by then.
const REMAKE_LATE_AFTER: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: io::ErrorKind) -> Unready {
        Unready::Refused(Failure::new(io::Error::from(kind).into()))
    }

    #[test]
    fn refused_connections_in_a_row_are_those_of_the_instance() {
        let closed = || refused(io::ErrorKind::ConnectionRefused);
        let mut streaks = Streaks::default();
        for other in [
            refused(io::ErrorKind::NetworkUnreachable),
            Unready::Refused(Failure::new("not connected within 300ms".into())),
            Unready::Late(Duration::ZERO),
        ] {
            [closed(), closed(), other].iter().for_each(|unready| streaks.add(unready));
            assert!(!streaks.is_closed());
        }
        (0..3).for_each(|_| streaks.add(&closed()));
        assert!(streaks.is_closed());
    }

    #[test]
    fn service_is_dead_after_each_third_refusal_or_ten_late_probes() {
        let mut streaks = Streaks::default();
        let mut is_dead = |unready: Unready| {
            streaks.add(&unready);
            streaks.is_dead(&unready)
        };
        let serves_not = || Unready::Refused(Failure::new(NotServing.into()));
        let late = || Unready::Late(Duration::ZERO);
        let refused = || refused(io::ErrorKind::ConnectionReset);
        let dead: Vec<_> = [refused(), late(), refused(), serves_not(), refused(), serves_not()]
            .into_iter()
            .map(&mut is_dead)
            .collect();
        assert_eq!(dead, [false, false, false, false, true, false]);
        let dead: Vec<_> = (0..20).map(|_| is_dead(late())).collect();
        assert_eq!(dead.iter().filter(|dead| **dead).count(), 2);
        assert!(dead[9] && dead[19]);
    }
}
