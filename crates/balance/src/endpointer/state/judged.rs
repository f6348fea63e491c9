//! Who is ejected, and for how long.

use std::sync::Arc;

use tokio::time::Instant;
use tower_sd_core::InstanceId;

use super::State;
use crate::endpointer::{
    EndpointStats, Tier,
    ejection::{Cause, EjectionReason, Verdict},
    health::Phase,
};

impl<S: Clone + Send + Sync + 'static> State<S> {
    /// Acts on what requests have found out.
    pub(in crate::endpointer) fn judge(&mut self) {
        for Verdict { id, key, cause } in self.judge.take_verdicts() {
            let Some(stats) = self.stats(&id).filter(|stats| stats.key == key).cloned() else {
                continue;
            };
            match (stats.health.phase(), cause) {
                (Phase::Decided, Cause::Undecided) => {
                    // It stays ejected, and that does not count as another ejection.
                    let until = stats.health.postpone(self.judge.policy(), self.now);
                    self.eject(&stats, Phase::Decided, until);
                }
                (from @ Phase::Accused, Cause::Requests(Some(reason))) if self.may_eject() => {
                    self.sentence(&stats, from, reason);
                }
                (from @ Phase::Decided, Cause::Requests(Some(reason))) if !self.is_over_limit() => {
                    self.sentence(&stats, from, reason);
                }
                (from @ (Phase::Accused | Phase::Decided), Cause::Requests(_)) => {
                    stats.forgive(self.now);
                    stats.change(from, Phase::Well);
                    self.ejected.remove(&id);
                }
                // Its place follows from active checks.
                _ => {}
            }
            self.settle(&id);
        }
    }

    /// One request decides about each ejection that is over; after a while without a verdict,
    /// another may.
    pub(super) fn end_ejections(&mut self) {
        let over = self.ejected.iter().filter(|(_, at)| **at <= self.now);
        let over: Vec<_> = over.map(|(id, _)| id.clone()).collect();
        for id in over {
            if let Some(stats) = self.stats(&id) {
                stats.change(Phase::Decided, Phase::Ejected);
                self.open(&id);
            }
            let patience = self.judge.policy().patience();
            self.ejected.insert(id, self.now + patience);
        }
    }

    /// A request may decide about it when its time is over, and it is where such requests go.
    pub(super) fn open(&self, id: &InstanceId) {
        let Some(stats) = self.stats(id).filter(|stats| stats.health.is_ejected()) else {
            return;
        };
        let place = self.members.get(id).and_then(|member| member.place);
        let is_in_place = place.is_some_and(|(tier, _)| tier == Tier::Ejected);
        let is_over = stats.ejection().is_some_and(|ejection| ejection.until <= self.now)
            && stats.check_failure().is_none();
        match is_in_place && is_over {
            true => stats.change(Phase::Ejected, Phase::Due),
            // While it is down, picks do not look for it.
            false => stats.change(Phase::Due, Phase::Ejected),
        };
    }

    /// It leaves: no request decides about it.
    pub(super) fn suspend(&mut self, id: &InstanceId) {
        if let Some(stats) = self.stats(id) {
            stats.health.suspend(&self.judge);
            self.ejected.remove(id);
        }
    }

    /// It has returned with its endpoint: its ejection goes on.
    pub(super) fn resume(&mut self, stats: &EndpointStats) {
        // Its last requests have failed when it left, or after: that verdict had no member.
        stats.change(Phase::Accused, Phase::Well);
        if stats.health.is_ejected()
            && let Some(ejection) = stats.ejection()
        {
            self.ejected.insert(stats.id.clone(), ejection.until);
        }
    }

    /// `Some` when the panic has begun, or has ended.
    pub(in crate::endpointer) fn enter_panic(&mut self) -> Option<bool> {
        let is_empty = |tier| self.tiers.get(tier).len() == 0;
        let panic = is_empty(Tier::Ready) && !is_empty(Tier::Ejected);
        let before = std::mem::replace(&mut self.panic, panic);
        (before != panic).then_some(panic)
    }

    /// Then at most half are, and never the last that is usable.
    fn may_eject(&self) -> bool {
        // Those that are down as well are ejected still when they are back.
        self.ejected.len() + 1 < self.tiers.get(Tier::Ready).len()
    }

    /// More than half are ejected, because others have left.
    fn is_over_limit(&self) -> bool {
        let n_ejected = self.ejected.len();
        // Those that are out by their checks are there still.
        let n_out = self.tiers.get(Tier::Ejected).len().max(n_ejected);
        2 * n_ejected > self.tiers.get(Tier::Ready).len() + n_out
    }

    fn sentence(&mut self, stats: &EndpointStats, from: Phase, reason: EjectionReason) {
        let chance = self.rng.f64();
        let until = stats.health.eject(reason, self.judge.policy(), self.now, chance);
        self.eject(stats, from, until);
    }

    fn eject(&mut self, stats: &EndpointStats, from: Phase, until: Instant) {
        stats.change(from, Phase::Ejected);
        self.ejected.insert(stats.id.clone(), until);
    }

    fn stats(&self, id: &InstanceId) -> Option<&Arc<EndpointStats>> {
        Some(&self.members.get(id)?.endpoint.as_ref()?.stats)
    }
}
