//! Who is ejected, and for how long.

use tokio::time::Instant;
use tower_sd_core::InstanceId;

use super::{Effects, State};
use crate::endpointer::{
    EndpointStats, Tier,
    ejection::{EjectionPolicy, EjectionReason, Phase, Verdict},
};

impl<S: Clone + Send + Sync + 'static> State<S> {
    /// Acts on what requests have found out.
    pub(in crate::endpointer) fn judge(&mut self, now: Instant, effects: &mut Effects<S>) {
        for Verdict { id, key, reason } in self.judge.take_verdicts() {
            let Some(member) = self.member_with(&id, key) else {
                continue;
            };
            let Some(endpoint) = &member.endpoint else {
                continue;
            };
            let stats = std::sync::Arc::clone(&endpoint.stats);
            match (stats.health().phase(), reason) {
                (Phase::Accused, Some(reason)) if self.may_eject() => {
                    self.eject(&stats, Phase::Accused, reason, now);
                }
                (Phase::Accused, _) => self.acquit(&stats, Phase::Accused, now),
                (Phase::Decided, None) => self.acquit(&stats, Phase::Decided, now),
                (Phase::Decided, Some(reason)) => self.eject(&stats, Phase::Decided, reason, now),
                _ => {}
            }
            effects.publish |= self.settle(&id, now, effects);
        }
    }

    /// One request decides about each ejection that is over.
    pub(super) fn end_ejections(&mut self, now: Instant) {
        while let Some((_, id)) = self.ejected.first().filter(|(until, _)| *until <= now).cloned() {
            self.ejected.pop_first();
            if let Some(endpoint) = self.members.get(&id).and_then(|m| m.endpoint.as_ref()) {
                endpoint.stats.health().change(Phase::Ejected, Phase::Due, &self.judge);
            }
        }
    }

    /// It leaves: no request decides about it.
    pub(super) fn suspend(&mut self, id: &InstanceId) {
        let Some(endpoint) = self.members.get(id).and_then(|member| member.endpoint.as_ref())
        else {
            return;
        };
        let health = endpoint.stats.health();
        for from in [Phase::Due, Phase::Decided] {
            health.change(from, Phase::Ejected, &self.judge);
        }
        health.change(Phase::Accused, Phase::Well, &self.judge);
        if let Some(ejection) = health.ejection() {
            self.ejected.remove(&(ejection.until, id.clone()));
        }
    }

    /// It has returned with its endpoint: its ejection goes on.
    pub(super) fn resume(&mut self, stats: &EndpointStats) {
        if stats.health().is_ejected()
            && let Some(ejection) = stats.ejection()
        {
            self.ejected.insert((ejection.until, stats.id.clone()));
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
        let (n_ready, n_ejected) =
            (self.tiers.get(Tier::Ready).len(), self.tiers.get(Tier::Ejected).len());
        n_ready > 1 && n_ejected < EjectionPolicy::limit(n_ready + n_ejected)
    }

    fn eject(&mut self, stats: &EndpointStats, from: Phase, reason: EjectionReason, now: Instant) {
        let chance = self.rng.f64();
        let until = stats.health().eject(reason, self.judge.policy(), now, chance);
        stats.health().change(from, Phase::Ejected, &self.judge);
        self.ejected.insert((until, stats.id.clone()));
    }

    fn acquit(&self, stats: &EndpointStats, from: Phase, now: Instant) {
        stats.forgive(now);
        stats.health().change(from, Phase::Well, &self.judge);
    }
}
