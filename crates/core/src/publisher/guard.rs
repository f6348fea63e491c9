//! Decides about instances that are no longer offered.
//!
//! Pure: the time is a parameter.

mod history;
mod loss;
mod member;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use self::{
    history::History,
    member::{Class, Confirms, Gone, Member, Standing},
};
use super::listing::Wants;
use crate::{Instance, LossGuard, LossPolicy, duration::MAX};

pub(super) struct Guard {
    /// `None`: every loss is accepted.
    policy: Option<LossGuard>,
    pub(super) removal_wait: Duration,
    pub(super) wants: Wants,
    /// Of the last read.
    listed: Arc<[Instance]>,
    /// Sorted by id.
    members: Vec<Member>,
    history: History,
    /// The number of offered instances at which a loss counts as replaced.
    lost_from: usize,
    n_reads: u64,
    /// The next read is the first one after an error or a resync: a registry that was restarted may
    /// list a part of what is registered.
    recovering: bool,
    /// What the read under way lacks has left by the registry's explicit word.
    accepts_absences: bool,
}

/// The effects of passing time.
#[derive(Debug, Default)]
pub(super) struct Tick {
    pub(super) changed: bool,
    pub(super) confirm: bool,
    /// The loss that the guard has just held.
    pub(super) tripped: Option<Tripped>,
    /// Instances that are held because they are still registered.
    pub(super) n_unhealthy: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Tripped {
    pub(super) n_held: usize,
    pub(super) left: usize,
    /// Of the first: `"absent"`, `"status"`, `"weight"`, or of all: `"replacement"`, `"recovery"`.
    pub(super) cause: &'static str,
}

impl Guard {
    pub(super) fn new(policy: LossPolicy, removal_wait: Duration) -> Self {
        let policy = match policy {
            LossPolicy::Accept => None,
            LossPolicy::Guard(guard) => Some(guard.clamped()),
        };
        let history = History::new(policy.map_or(Duration::ZERO, |policy| policy.window));
        Self {
            policy,
            removal_wait: removal_wait.min(MAX),
            wants: Vec::new(),
            listed: Arc::new([]),
            members: Vec::new(),
            history,
            lost_from: 0,
            n_reads: 0,
            recovering: false,
            accepts_absences: false,
        }
    }

    /// Sets whether what the next read lacks is accepted; not so if it is the first one after
    /// trouble.
    pub(super) fn accept_absences(&mut self, accepts: bool) {
        self.accepts_absences = accepts && !self.recovering;
    }

    /// The registry could not be read, or has lost the position.
    pub(super) fn trouble(&mut self) {
        self.recovering = true;
    }

    /// Takes the entries of the registry, sorted by id; `true` when the published set has changed.
    ///
    /// A held instance leaves with a confirming read after its term only.
    pub(super) fn read(&mut self, now: Instant, listed: Arc<[Instance]>, confirmed: bool) -> bool {
        self.n_reads += 1;
        let n_counted = self.members.iter().filter(|member| member.is_counted()).count();
        self.history.remember_size(now, n_counted);
        let classes = self.classes(&listed);
        let mut old = std::mem::take(&mut self.members).into_iter().peekable();
        let mut members = Vec::with_capacity(listed.len());
        let mut changed = false;
        for (instance, class) in listed.iter().zip(classes) {
            while let Some(gone) = old.next_if(|old| before(&old.instance, instance)) {
                changed |= self.absent(now, gone, confirmed, &mut members);
            }
            let known = old.next_if(|old| same(&old.instance, instance));
            changed |= self.present(now, (instance, class), known, confirmed, &mut members);
        }
        for gone in old {
            changed |= self.absent(now, gone, confirmed, &mut members);
        }
        (self.recovering, self.accepts_absences) = (false, false);
        let n_offered = members.iter().filter(|member| member.is_offered()).count();
        for member in &mut members {
            if let Standing::Gone(gone) = &mut member.standing {
                gone.least = gone.least.min(n_offered);
            }
        }
        (self.members, self.listed) = (members, listed);
        if self.members.iter().any(Member::is_held) {
            if n_offered >= self.lost_from {
                self.shorten_terms();
            }
            let n_members = self.members.len();
            self.drop_renamed(&Member::is_held);
            changed |= self.members.len() < n_members;
        }
        changed
    }

    /// Applies what is due.
    pub(super) fn tick(&mut self, now: Instant) -> Tick {
        let mut tick = Tick::default();
        self.decide(now, &mut tick);
        let n_members = self.members.len();
        self.members.retain_mut(|member| match &mut member.standing {
            Standing::Gone(gone) if gone.is_held() => {
                tick.confirm |= gone.request_confirm(now);
                gone.confirms != Confirms::None || gone.end() > now
            }
            _ => true,
        });
        tick.changed |= self.members.len() < n_members;
        tick
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.members.iter().filter_map(Member::deadline).min()
    }

    /// The confirming read that was requested has shown nothing: it is due again.
    pub(super) fn confirm_again(&mut self) {
        for member in &mut self.members {
            if let Standing::Gone(gone) = &mut member.standing
                && gone.confirms == Confirms::Both
            {
                gone.confirms = Confirms::HalfWay;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        (self.members, self.listed) = (Vec::new(), Arc::new([]));
        self.history = History::new(self.policy.map_or(Duration::ZERO, |policy| policy.window));
        self.lost_from = 0;
    }

    pub(super) fn instances(&self) -> Arc<[Instance]> {
        let is_listed = self.members.len() == self.listed.len();
        match is_listed && self.members.iter().all(Member::is_offered) {
            true => Arc::clone(&self.listed),
            false => self.with(|member| !member.is_held()),
        }
    }

    pub(super) fn held(&self) -> Arc<[Instance]> {
        self.with(Member::is_held)
    }

    fn with(&self, wanted: impl Fn(&Member) -> bool) -> Arc<[Instance]> {
        let members = self.members.iter().filter(|member| wanted(member));
        members.map(|member| member.instance.clone()).collect()
    }

    /// Takes an entry; `true` when what is shown has changed.
    fn present(
        &self,
        now: Instant,
        (instance, class): (&Instance, Option<Class>),
        known: Option<Member>,
        confirmed: bool,
        members: &mut Vec<Member>,
    ) -> bool {
        let Some(class) = class else {
            members.extend(known);
            return false;
        };
        let first_read = known.as_ref().map_or(self.n_reads, |known| known.first_read);
        match known {
            known if class == Class::Offered => {
                let same = known.is_some_and(|k| k.is_counted() && k.instance == *instance);
                let (instance, standing) = (instance.clone(), Standing::Offered);
                members.push(Member { instance, standing, first_read });
                !same
            }
            Some(known) if !matches!(known.standing, Standing::Unfit) => {
                self.gone(now, known, Some((class, instance.clone())), confirmed, members)
            }
            known if class == Class::Hidden => known.is_some(),
            known => {
                let changed = known.is_none_or(|known| known.instance != *instance);
                let (instance, standing) = (instance.clone(), Standing::Unfit);
                members.push(Member { instance, standing, first_read });
                changed
            }
        }
    }

    /// Takes the absence of a member; `true` when what is shown has changed.
    fn absent(
        &mut self,
        now: Instant,
        member: Member,
        confirmed: bool,
        members: &mut Vec<Member>,
    ) -> bool {
        match &member.standing {
            Standing::Unfit => {
                self.history.forget_removed(member.instance.id());
                true
            }
            Standing::Offered if self.accepts_absences => true,
            Standing::Gone(gone) if self.accepts_absences && gone.now.is_some() => true,
            _ => self.gone(now, member, None, confirmed, members),
        }
    }

    /// A member that was offered, and is not now.
    fn gone(
        &self,
        now: Instant,
        mut member: Member,
        registered: Option<(Class, Instance)>,
        confirmed: bool,
        members: &mut Vec<Member>,
    ) -> bool {
        match &mut member.standing {
            standing @ (Standing::Offered | Standing::Unfit) => {
                let mut gone = Gone::new(self.n_reads, now, self.removal_wait, registered);
                gone.recovering = self.recovering;
                *standing = Standing::Gone(Box::new(gone));
            }
            Standing::Gone(gone) => {
                let is_over = match gone.confirms {
                    Confirms::NotHeld => false,
                    Confirms::None => registered.is_none(),
                    _ => confirmed && gone.end() <= now,
                };
                if is_over {
                    if let Some((Class::Unfit, instance)) = registered {
                        let (standing, first_read) = (Standing::Unfit, member.first_read);
                        members.push(Member { instance, standing, first_read });
                    }
                    return true;
                }
                gone.now = registered;
            }
        }
        members.push(member);
        false
    }

    /// Of those that are listed; `None`: offered, and the same as before.
    ///
    /// The filter is the user's and may panic: it runs before anything is taken apart.
    fn classes(&self, listed: &[Instance]) -> Vec<Option<Class>> {
        let mut known = self.members.iter().peekable();
        let class = |instance: &Instance| {
            while known.next_if(|old| before(&old.instance, instance)).is_some() {}
            let known = known.next_if(|old| same(&old.instance, instance));
            let is_kept = known.is_some_and(|it| it.is_offered() && it.instance.ptr_eq(instance));
            (!is_kept).then(|| self.class(instance))
        };
        listed.iter().map(class).collect()
    }

    fn class(&self, instance: &Instance) -> Class {
        let fit = self.policy.is_none_or(|policy| {
            (!policy.by_status || instance.status().accepts_requests())
                && (!policy.by_weight || instance.weight() > 0)
        });
        match (self.wants.iter().all(|wants| wants(instance)), fit) {
            (false, _) => Class::Hidden,
            (true, true) => Class::Offered,
            (true, false) => Class::Unfit,
        }
    }
}

fn before(old: &Instance, new: &Instance) -> bool {
    !old.ptr_eq(new) && old.id() < new.id()
}

fn same(old: &Instance, new: &Instance) -> bool {
    old.ptr_eq(new) || old.id() == new.id()
}
