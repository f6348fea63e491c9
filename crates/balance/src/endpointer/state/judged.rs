//! Who is ejected, and for how long.

use std::sync::Arc;

use tokio::time::Instant;
use tower_sd_core::InstanceId;

use super::{Effects, State};
use crate::endpointer::{
    EndpointStats, Tier,
    ejection::{Cause, EjectionPolicy, EjectionReason, Verdict},
    health::Phase,
};

impl<S: Clone + Send + Sync + 'static> State<S> {
    /// Acts on what requests have found out.
    pub(in crate::endpointer) fn judge(&mut self, now: Instant, effects: &mut Effects<S>) {
        for Verdict { id, key, cause } in self.judge.take_verdicts() {
            let Some(member) = self.member_with(&id, key) else {
                continue;
            };
            let Some(endpoint) = &member.endpoint else {
                continue;
            };
            let stats = Arc::clone(&endpoint.stats);
            match (stats.health().phase(), cause) {
                // Its place follows from it.
                (_, Cause::Checks) => {}
                (Phase::Decided, Cause::Undecided) => self.postpone(&stats, now),
                (_, Cause::Undecided) => {}
                (Phase::Accused, Cause::Requests(Some(reason))) if self.may_eject() => {
                    self.eject(&stats, Phase::Accused, reason, now);
                }
                (Phase::Accused, _) => self.acquit(&stats, Phase::Accused, now),
                (Phase::Decided, Cause::Requests(Some(reason))) if !self.is_over_limit() => {
                    self.eject(&stats, Phase::Decided, reason, now);
                }
                (Phase::Decided, _) => self.acquit(&stats, Phase::Decided, now),
                _ => {}
            }
            effects.publish |= self.settle(&id, now, effects);
        }
    }

    /// One request decides about each ejection that is over; after a while without a verdict,
    /// another may.
    pub(super) fn end_ejections(&mut self, now: Instant) {
        while let Some((_, id)) = self.ejected.first().filter(|(at, _)| *at <= now).cloned() {
            self.ejected.pop_first();
            if let Some(endpoint) = self.members.get(&id).and_then(|m| m.endpoint.as_ref()) {
                let stats = Arc::clone(&endpoint.stats);
                stats.health().change(Phase::Decided, Phase::Ejected, &self.judge);
                self.open(&id, now);
                let next = now.checked_add(self.judge.policy().patience());
                self.schedule_ejection(&stats, next);
            }
        }
    }

    /// A request may decide about it when its time is over, and it is where such requests go.
    pub(super) fn open(&mut self, id: &InstanceId, now: Instant) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let Some(stats) = member.endpoint.as_ref().map(|endpoint| &endpoint.stats) else {
            return;
        };
        let health = stats.health();
        if !health.is_ejected() {
            return;
        }
        let is_in_place = member.place.is_some_and(|(tier, _)| tier == Tier::Ejected);
        let is_over = health.ejection().is_some_and(|ejection| ejection.until <= now)
            && stats.check_failure().is_none();
        match is_in_place && is_over {
            true => health.change(Phase::Ejected, Phase::Due, &self.judge),
            // While it is down, picks do not look for it.
            false => health.change(Phase::Due, Phase::Ejected, &self.judge),
        };
    }

    /// It leaves: no request decides about it.
    pub(super) fn suspend(&mut self, id: &InstanceId) {
        let Some(endpoint) = self.members.get(id).and_then(|member| member.endpoint.as_ref())
        else {
            return;
        };
        let stats = Arc::clone(&endpoint.stats);
        stats.health().suspend(&self.judge);
        stats.health().change(Phase::Accused, Phase::Well, &self.judge);
        self.schedule_ejection(&stats, None);
    }

    /// It has returned with its endpoint: its ejection goes on.
    pub(super) fn resume(&mut self, stats: &EndpointStats) {
        // Its last requests have failed after it had left: that verdict had no member.
        stats.health().change(Phase::Accused, Phase::Well, &self.judge);
        if stats.health().is_ejected()
            && let Some(ejection) = stats.ejection()
        {
            self.schedule_ejection(stats, Some(ejection.until));
        }
    }

    /// `Some` when the panic has begun, or has ended.
    pub(in crate::endpointer) fn enter_panic(&mut self) -> Option<bool> {
        let is_empty = |tier| self.tiers.get(tier).len() == 0;
        let panic = is_empty(Tier::Ready) && !is_empty(Tier::Ejected);
        let before = std::mem::replace(&mut self.panic, panic);
        (before != panic).then_some(panic)
    }

    /// At most half, and never the last that is usable.
    fn may_eject(&self) -> bool {
        // Those that are down as well are ejected still when they are back.
        let (n_ready, n_ejected) = (self.tiers.get(Tier::Ready).len(), self.ejected.len());
        n_ready > 1 && n_ejected < EjectionPolicy::limit(n_ready + n_ejected)
    }

    /// More than half are ejected, because others have left.
    fn is_over_limit(&self) -> bool {
        let n_ejected = self.ejected.len();
        // Those that are out by their checks are there still.
        let n_out = self.tiers.get(Tier::Ejected).len().max(n_ejected);
        n_ejected > EjectionPolicy::limit(self.tiers.get(Tier::Ready).len() + n_out)
    }

    fn eject(&mut self, stats: &EndpointStats, from: Phase, reason: EjectionReason, now: Instant) {
        let chance = self.rng.f64();
        let until = stats.health().eject(reason, self.judge.policy(), now, chance);
        stats.health().change(from, Phase::Ejected, &self.judge);
        self.schedule_ejection(stats, Some(until));
    }

    /// It stays ejected, and that does not count as another ejection.
    fn postpone(&mut self, stats: &EndpointStats, now: Instant) {
        let until = stats.health().postpone(self.judge.policy(), now);
        stats.health().change(Phase::Decided, Phase::Ejected, &self.judge);
        self.schedule_ejection(stats, Some(until));
    }

    fn acquit(&mut self, stats: &EndpointStats, from: Phase, now: Instant) {
        stats.forgive(now);
        stats.health().change(from, Phase::Well, &self.judge);
        self.schedule_ejection(stats, None);
    }

    /// Each ejected member has one time, others have none.
    fn schedule_ejection(&mut self, stats: &EndpointStats, at: Option<Instant>) {
        if let Some(before) = stats.health().schedule(at) {
            self.ejected.remove(&(before, stats.id.clone()));
        }
        self.ejected.extend(at.map(|at| (at, stats.id.clone())));
    }
}
