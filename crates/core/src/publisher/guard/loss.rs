use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use super::{Class, Confirms, Gone, Guard, Member, Standing, Tick, Tripped};
use crate::{Instance, LossGuard};

impl Guard {
    /// The losses whose wait is over: publish them, or hold them with what was lost just before.
    pub(super) fn decide(&mut self, now: Instant, tick: &mut Tick) {
        let due = |member: &Member| matches!(&member.standing, Standing::Gone(gone) if !gone.is_held() && gone.end() <= now);
        let first = self.members.iter().find_map(|member| match &member.standing {
            Standing::Gone(gone) if due(member) => Some((gone.read, gone.cause())),
            _ => None,
        });
        let Some((read, cause)) = first else { return };
        tick.changed = true;
        self.drop_renamed(&due);
        match self.tripped(now, read, &due) {
            Some((term, replaced)) => {
                let cause = if replaced { "replacement" } else { cause };
                let n_held = self.hold(now, term, &due);
                tick.tripped = self.trip(n_held, cause);
            }
            None => {
                let n_held = self.accept(now, &due, tick);
                tick.tripped = self.trip(n_held, "recovery");
            }
        }
    }

    fn trip(&self, n_held: usize, cause: &'static str) -> Option<Tripped> {
        let left = self.members.iter().filter(|member| member.is_counted()).count();
        (n_held > 0).then_some(Tripped { n_held, left, cause })
    }

    /// Whether too little is left, and if so for how long what was lost is held, and whether it was
    /// replaced.
    fn tripped(
        &mut self,
        now: Instant,
        read: u64,
        due: &impl Fn(&Member) -> bool,
    ) -> Option<(Duration, bool)> {
        let LossGuard { fraction, hold, hold_empty, by_replacement, .. } = self.policy?;
        let counted = self.members.iter().filter(|member| member.is_counted());
        let (mut n_left, mut n_lost, mut n_survivors, mut least) = (0, 0, 0, usize::MAX);
        for member in counted {
            match &member.standing {
                Standing::Gone(gone) if due(member) => {
                    n_lost += 1;
                    least = least.min(gone.least);
                }
                _ => {
                    n_left += 1;
                    n_survivors += usize::from(member.first_read < read);
                }
            }
        }
        if n_lost == 0 {
            return None;
        }
        let largest = self.history.largest(now).max(n_left + n_lost);
        // The rest of a large loss is doubted although most of it has come back meanwhile.
        let too_few = as_f64(n_left.min(least)) < fraction * as_f64(largest);
        let replaced =
            by_replacement && as_f64(n_survivors) < fraction * as_f64(n_survivors + n_lost);
        if !too_few && !replaced {
            return None;
        }
        self.lost_from = largest;
        Some((if n_left == 0 { hold_empty } else { hold }, !too_few))
    }

    fn hold(&mut self, now: Instant, term: Duration, due: &impl Fn(&Member) -> bool) -> usize {
        let n_held_before = self.n_held();
        let nothing_left = !self.members.iter().any(Member::is_offered);
        for member in &mut self.members {
            let is_due = due(member);
            match &mut member.standing {
                Standing::Gone(gone) if is_due => gone.hold(now, term, Confirms::Neither),
                // A loss to nothing that came one by one is the same loss.
                Standing::Gone(gone) if gone.is_held() => gone.extend(term, now),
                _ => {}
            }
        }
        let removed = self.history.take_removed(now, nothing_left);
        self.bring_back(now, term, removed);
        self.n_held() - n_held_before
    }

    /// Holds what was lost just before, too.
    fn bring_back(&mut self, now: Instant, term: Duration, removed: Vec<Instance>) {
        let addresses: HashSet<_> = self.members.iter().map(|m| address(&m.instance)).collect();
        for instance in removed {
            let held = |registered| {
                let mut gone = Gone::new(self.n_reads, now, term, registered);
                gone.confirms = Confirms::Neither;
                Standing::Gone(Box::new(gone))
            };
            match self.members.iter_mut().find(|member| member.instance.id() == instance.id()) {
                Some(member) if matches!(member.standing, Standing::Unfit) => {
                    let unfit = std::mem::replace(&mut member.instance, instance);
                    member.standing = held(Some((Class::Unfit, unfit)));
                }
                Some(_) => {}
                None if addresses.contains(&address(&instance)) => {}
                None => {
                    let standing = held(None);
                    self.members.push(Member { instance, standing, first_read: self.n_reads });
                }
            }
        }
        self.members.sort_by(|a, b| a.instance.id().cmp(b.instance.id()));
    }

    /// Publishes the losses that are due. An instance that the filter refuses is held while it is
    /// registered; one that the first read after trouble did not list until that is confirmed.
    /// Returns the number of the latter.
    fn accept(&mut self, now: Instant, due: &impl Fn(&Member) -> bool, tick: &mut Tick) -> usize {
        let keep = self.policy.map_or(Duration::ZERO, |policy| policy.hold_unhealthy);
        let hold = self.policy.map(|policy| policy.hold);
        let history = &mut self.history;
        let mut n_doubted = 0;
        self.members.retain_mut(|member| {
            if !due(member) {
                return true;
            }
            let Standing::Gone(gone) = &mut member.standing else {
                return true;
            };
            let doubted = hold.filter(|_| gone.recovering);
            if let (None, Some(hold)) = (&gone.now, doubted) {
                gone.hold(now, hold, Confirms::Neither);
                n_doubted += 1;
                return true;
            }
            history.remember_removed(now, member.instance.clone());
            match &gone.now {
                Some((Class::Unfit, instance)) => {
                    (member.instance, member.standing) = (instance.clone(), Standing::Unfit);
                    true
                }
                Some(_) if !keep.is_zero() => {
                    gone.hold(now, keep, Confirms::None);
                    tick.n_unhealthy += 1;
                    true
                }
                _ => false,
            }
        });
        n_doubted
    }

    /// An instance whose address is listed under another id has been renamed, not lost.
    pub(super) fn drop_renamed(&mut self, due: &impl Fn(&Member) -> bool) {
        let offered = self.members.iter().filter(|member| member.is_offered());
        let offered: HashSet<_> = offered.map(|member| address(&member.instance)).collect();
        self.members.retain(|m| !due(m) || !offered.contains(&address(&m.instance)));
    }

    /// All losses are replaced: what is still held is held no longer than after a lesser loss.
    pub(super) fn shorten_terms(&mut self) {
        let Some(LossGuard { hold, .. }) = self.policy else {
            return;
        };
        for member in &mut self.members {
            if let Standing::Gone(gone) = &mut member.standing
                && !matches!(gone.confirms, Confirms::NotHeld | Confirms::None)
            {
                gone.term = hold.min(gone.term);
            }
        }
    }

    fn n_held(&self) -> usize {
        self.members.iter().filter(|member| member.is_held()).count()
    }
}

fn address(instance: &Instance) -> (String, u16) {
    (instance.host().to_owned(), instance.port())
}

/// Sizes stay far below 2^32, where `f64` is exact.
fn as_f64(size: usize) -> f64 {
    f64::from(u32::try_from(size).unwrap_or(u32::MAX))
}
