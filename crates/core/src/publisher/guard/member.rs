use std::time::Duration;

use tokio::time::Instant;

use crate::Instance;

#[derive(Debug)]
pub(super) struct Member {
    /// As it is shown: once it is no longer offered, as it was when it last was.
    pub(super) instance: Instance,
    pub(super) standing: Standing,
    /// The read that offered it first.
    pub(super) first_read: u64,
}

#[derive(Debug)]
pub(super) enum Standing {
    /// Listed, and counted.
    Offered,
    /// Listed with a status or weight that accepts no requests.
    Unfit,
    /// No longer offered.
    Gone(Box<Gone>),
}

/// A member that is no longer offered.
#[derive(Debug)]
pub(super) struct Gone {
    /// The read that did not offer it any more.
    pub(super) read: u64,
    pub(super) since: Instant,
    pub(super) term: Duration,
    /// The least number of offered instances that a read has left since.
    pub(super) least: usize,
    /// That read was the first one after trouble.
    pub(super) recovering: bool,
    pub(super) confirms: Confirms,
    /// What the registry has of it.
    pub(super) now: Option<(Class, Instance)>,
}

/// What an entry of the registry is to the guard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    Offered,
    Unfit,
    /// The filter refuses it.
    Hidden,
}

/// Whether it is held, and which of the two confirming reads was requested then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Confirms {
    /// It is not held yet: it waits for the reads that follow.
    NotHeld,
    /// Its loss is not doubted: it is held for the term, without a confirmation.
    None,
    Neither,
    HalfWay,
    Both,
}

impl Member {
    pub(super) fn is_held(&self) -> bool {
        matches!(&self.standing, Standing::Gone(gone) if gone.is_held())
    }

    pub(super) fn is_offered(&self) -> bool {
        matches!(self.standing, Standing::Offered)
    }

    /// Offered, or about to be decided on.
    pub(super) fn is_counted(&self) -> bool {
        !matches!(self.standing, Standing::Unfit) && !self.is_held()
    }

    /// When time changes its standing.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.standing {
            Standing::Gone(gone) => gone.next_event(),
            Standing::Offered | Standing::Unfit => None,
        }
    }
}

impl Gone {
    /// One that waits for `term` from now on.
    pub(super) fn new(
        read: u64,
        since: Instant,
        term: Duration,
        now: Option<(Class, Instance)>,
    ) -> Self {
        let (least, recovering, confirms) = (usize::MAX, false, Confirms::NotHeld);
        Self { read, since, term, least, recovering, confirms, now }
    }

    pub(super) fn is_held(&self) -> bool {
        self.confirms != Confirms::NotHeld
    }

    pub(super) fn end(&self) -> Instant {
        self.since + self.term
    }

    /// Holds it from now on, for another term.
    pub(super) fn hold(&mut self, now: Instant, term: Duration, confirms: Confirms) {
        (self.since, self.term, self.confirms) = (now, term, confirms);
    }

    /// Lengthens the term of a held one. A confirming read before its end confirms nothing.
    pub(super) fn extend(&mut self, term: Duration, now: Instant) {
        self.term = term.max(self.term);
        self.confirms = match self.confirms {
            Confirms::None => Confirms::Neither,
            Confirms::Both if self.end() > now => Confirms::HalfWay,
            confirms => confirms,
        };
    }

    /// Why it is not offered, for the log.
    pub(super) fn cause(&self) -> &'static str {
        match &self.now {
            None => "absent",
            Some((_, instance)) if instance.weight() == 0 => "weight",
            Some(_) => "status",
        }
    }

    fn next_event(&self) -> Option<Instant> {
        match self.confirms {
            Confirms::Neither => Some(self.since + self.term / 2),
            Confirms::NotHeld | Confirms::HalfWay | Confirms::None => Some(self.end()),
            Confirms::Both => None,
        }
    }

    /// Notes a confirming read that is due; `true` when one is.
    pub(super) fn request_confirm(&mut self, now: Instant) -> bool {
        if self.next_event().is_none_or(|at| at > now) {
            return false;
        }
        self.confirms = match self.confirms {
            Confirms::NotHeld | Confirms::None => return false,
            Confirms::Neither => Confirms::HalfWay,
            Confirms::HalfWay | Confirms::Both => Confirms::Both,
        };
        true
    }
}
