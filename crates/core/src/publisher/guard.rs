use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{Instance, LossPolicy};

/// Decides what becomes of instances that the registry no longer lists. Pure: it is told the time.
#[derive(Debug)]
pub(super) struct Guard {
    policy: LossPolicy,
    removal_wait: Duration,
    /// Sorted by id.
    members: Vec<Member>,
    n_listed: usize,
    /// When the removals that wait are decided on.
    decide_at: Option<Instant>,
    /// Sizes that the listed set had, and until when each is inside the window.
    sizes: VecDeque<(Instant, usize)>,
    /// What was removed, and until when it can still be counted as part of a mass loss.
    removed: VecDeque<(Instant, Instance)>,
    /// The size that the set has to reach again before what was lost counts as replaced.
    lost_from: usize,
}

#[derive(Clone, Debug)]
struct Member {
    instance: Instance,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    Listed,
    /// Not listed any more; waits for what follows.
    Leaving,
    Held {
        since: Instant,
        term: Duration,
        asked: Asked,
    },
}

/// Which of the two confirming reads of a held instance has been asked for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Asked {
    No,
    HalfWay,
    AtTheEnd,
}

/// What time has brought.
#[derive(Debug, Default)]
pub(super) struct Tick {
    pub(super) changed: bool,
    pub(super) confirm: bool,
    /// How many instances have become held.
    pub(super) tripped: usize,
}

impl Guard {
    pub(super) fn new(policy: LossPolicy, removal_wait: Duration) -> Self {
        Self {
            policy,
            removal_wait,
            members: Vec::new(),
            n_listed: 0,
            decide_at: None,
            sizes: VecDeque::new(),
            removed: VecDeque::new(),
            lost_from: 0,
        }
    }

    /// Takes what the registry lists now, sorted by id; true when the published set has changed.
    pub(super) fn read(&mut self, now: Instant, listed: Vec<Instance>, confirmed: bool) -> bool {
        self.remember_size(now);
        self.n_listed = listed.len();
        if self.n_listed >= self.lost_from {
            self.shorten_terms();
        }
        let mut old = std::mem::take(&mut self.members).into_iter().peekable();
        let mut members = Vec::with_capacity(listed.len());
        let mut changed = false;
        for instance in listed {
            while let Some(gone) = old.next_if(|old| before(&old.instance, &instance)) {
                changed |= self.unlisted(now, gone, confirmed, &mut members);
            }
            let known = old.next_if(|old| same(&old.instance, &instance));
            changed |= !known.is_some_and(|known| {
                !matches!(known.standing, Standing::Held { .. }) && known.instance == instance
            });
            members.push(Member { instance, standing: Standing::Listed });
        }
        for gone in old {
            changed |= self.unlisted(now, gone, confirmed, &mut members);
        }
        self.members = members;
        changed
    }

    /// Applies what is due.
    pub(super) fn tick(&mut self, now: Instant) -> Tick {
        let mut tick = Tick::default();
        if self.decide_at.take_if(|at| *at <= now).is_some() {
            self.decide(now, &mut tick);
        }
        for member in &mut self.members {
            if let Standing::Held { since, term, asked } = &mut member.standing
                && let Some((at, then)) = next_question(*since, *term, *asked)
                && at <= now
            {
                *asked = then;
                tick.confirm = true;
            }
        }
        tick
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let questions = self.members.iter().filter_map(|member| match member.standing {
            Standing::Held { since, term, asked } => next_question(since, term, asked),
            Standing::Listed | Standing::Leaving => None,
        });
        questions.map(|(at, _)| at).chain(self.decide_at).min()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.policy, self.removal_wait);
    }

    pub(super) fn instances(&self) -> Arc<[Instance]> {
        self.with(|standing| !matches!(standing, Standing::Held { .. }))
    }

    pub(super) fn held(&self) -> Arc<[Instance]> {
        self.with(|standing| matches!(standing, Standing::Held { .. }))
    }

    pub(super) fn n_listed(&self) -> usize {
        self.n_listed
    }

    pub(super) fn n_held(&self) -> usize {
        self.members.len() - self.members.iter().filter(|m| !m.is_held()).count()
    }

    fn with(&self, wanted: impl Fn(Standing) -> bool) -> Arc<[Instance]> {
        let members = self.members.iter().filter(|member| wanted(member.standing));
        members.map(|member| member.instance.clone()).collect::<Vec<_>>().into()
    }

    /// A member that this read does not list stays for now; true when it was held, its term is over, and the read confirms
    /// the loss.
    fn unlisted(
        &mut self,
        now: Instant,
        gone: Member,
        confirmed: bool,
        members: &mut Vec<Member>,
    ) -> bool {
        match gone.standing {
            Standing::Held { since, term, .. } if confirmed && since + term <= now => return true,
            Standing::Held { .. } | Standing::Leaving => members.push(gone),
            Standing::Listed => {
                self.decide_at.get_or_insert(now + self.removal_wait);
                members.push(Member { standing: Standing::Leaving, ..gone });
            }
        }
        false
    }

    /// The removals have waited: publish them, or hold them with everything removed inside the window.
    fn decide(&mut self, now: Instant, tick: &mut Tick) {
        let n_leaving = self.members.iter().filter(|m| m.standing == Standing::Leaving).count();
        if n_leaving == 0 {
            return;
        }
        tick.changed = true;
        match self.tripped(now) {
            Some(term) => tick.tripped = self.hold(now, term),
            None => self.remove_leaving(now),
        }
    }

    /// Whether too little is left, and if so for how long what was lost is held.
    fn tripped(&mut self, now: Instant) -> Option<Duration> {
        let LossPolicy::Guard { fraction, hold, hold_empty, .. } = self.policy else {
            return None;
        };
        self.forget(now);
        let largest = self.sizes.iter().map(|(_, size)| *size).max().unwrap_or(0);
        if as_f64(self.n_listed) >= fraction * as_f64(largest) {
            return None;
        }
        self.lost_from = largest;
        Some(if self.n_listed == 0 { hold_empty } else { hold })
    }

    fn hold(&mut self, now: Instant, term: Duration) -> usize {
        let n_held_before = self.n_held();
        let held = Standing::Held { since: now, term, asked: Asked::No };
        for member in &mut self.members {
            match &mut member.standing {
                standing @ Standing::Leaving => *standing = held,
                // A loss to nothing that came one by one is the same loss.
                Standing::Held { term: earlier, .. } => *earlier = term.max(*earlier),
                Standing::Listed => {}
            }
        }
        let members = self.members.iter().map(|m| &m.instance);
        let ids: HashSet<_> = members.clone().map(|i| i.id().clone()).collect();
        let addresses: HashSet<_> = members.map(address).collect();
        let removed = std::mem::take(&mut self.removed).into_iter().map(|(_, instance)| instance);
        self.members.extend(
            removed
                .filter(|i| !ids.contains(i.id()) && !addresses.contains(&address(i)))
                .map(|instance| Member { instance, standing: held }),
        );
        self.members.sort_by(|a, b| a.instance.id().cmp(b.instance.id()));
        self.members.dedup_by(|a, b| a.instance.id() == b.instance.id());
        self.n_held() - n_held_before
    }

    fn remove_leaving(&mut self, now: Instant) {
        let window = self.window();
        let mut members = std::mem::take(&mut self.members);
        members.retain(|member| {
            let stays = member.standing != Standing::Leaving;
            if !stays && !window.is_zero() {
                self.removed.push_back((now + window, member.instance.clone()));
            }
            stays
        });
        self.members = members;
    }

    /// Everybody who was lost has been replaced: what is still held is held no longer than after a lesser loss.
    fn shorten_terms(&mut self) {
        let LossPolicy::Guard { hold, .. } = self.policy else {
            return;
        };
        for member in &mut self.members {
            if let Standing::Held { term, .. } = &mut member.standing {
                *term = hold.min(*term);
            }
        }
    }

    fn remember_size(&mut self, now: Instant) {
        self.forget(now);
        let window = self.window();
        if !window.is_zero() {
            // Only sizes above all later ones can ever be the largest.
            while self.sizes.back().is_some_and(|(_, size)| *size <= self.n_listed) {
                self.sizes.pop_back();
            }
            self.sizes.push_back((now + window, self.n_listed));
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.sizes.front().is_some_and(|(until, _)| *until <= now) {
            self.sizes.pop_front();
        }
        while self.removed.front().is_some_and(|(until, _)| *until <= now) {
            self.removed.pop_front();
        }
    }

    fn window(&self) -> Duration {
        match self.policy {
            LossPolicy::Accept => Duration::ZERO,
            LossPolicy::Guard { window, .. } => window,
        }
    }
}

impl Member {
    fn is_held(&self) -> bool {
        matches!(self.standing, Standing::Held { .. })
    }
}

fn next_question(since: Instant, term: Duration, asked: Asked) -> Option<(Instant, Asked)> {
    match asked {
        Asked::No => Some((since + term / 2, Asked::HalfWay)),
        Asked::HalfWay => Some((since + term, Asked::AtTheEnd)),
        Asked::AtTheEnd => None,
    }
}

fn address(instance: &Instance) -> (String, u16) {
    (instance.host().to_owned(), instance.port())
}

fn before(old: &Instance, new: &Instance) -> bool {
    !old.ptr_eq(new) && old.id() < new.id()
}

fn same(old: &Instance, new: &Instance) -> bool {
    old.ptr_eq(new) || old.id() == new.id()
}

/// Sizes stay far below 2^32, where `f64` is exact.
fn as_f64(size: usize) -> f64 {
    f64::from(u32::try_from(size).unwrap_or(u32::MAX))
}
