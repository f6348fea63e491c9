//! Who is a member, and its place in the tiers.

use std::{borrow::Cow, collections::HashSet, mem, sync::Arc};

use tokio::time::Instant;
use tower_sd_core::{Backoff, Instance, InstanceId, InstanceStatus, Snapshot};

use super::{Change, Member, Numbers, Sharing, State};
use crate::{
    endpointer::{
        Endpoint, EndpointState, MAX_WEIGHT, Readiness, Tier, contain::contain, diff::diff,
        drain::Draining, life::Life, signal::Streaks,
    },
    error::Failure,
};

impl<S: Clone + Send + Sync + 'static> State<S> {
    /// Makes the members those of `snapshot`.
    pub(super) fn apply(&mut self, snapshot: &Snapshot) {
        if self.closed {
            return;
        }
        self.forget_ramps();
        let before = self.snapshot.replace(snapshot.clone());
        let (was_listed, was_held, was_synced) = match &before {
            Some(before) => (before.instances(), before.held(), before.freshness().is_synced()),
            None => (&[][..], &[][..], false),
        };
        // Requests that wait for the first snapshot have to see it although it may be empty.
        self.effects.wake |= was_synced != snapshot.freshness().is_synced();
        let [was_listed, was_held] = self.selected(was_listed, was_held);
        let [is_listed, is_held] = self.selected(snapshot.instances(), snapshot.held());
        let (listed, held) = (diff(&was_listed, &is_listed), diff(&was_held, &is_held));
        let mut all = is_listed.iter().chain(is_held.iter());
        let is_new_set = all.all(|instance| !self.members.contains_key(instance.id()));
        for (put, held) in [(listed.put, false), (held.put, true)] {
            for instance in put {
                self.put(instance, held, is_new_set);
            }
        }
        for instance in listed.gone {
            self.leave(instance.id(), false);
        }
        for instance in held.gone {
            self.leave(instance.id(), true);
        }
        self.share();
    }

    /// The instances that get an endpoint.
    fn selected<'a>(
        &self,
        listed: &'a [Instance],
        held: &'a [Instance],
    ) -> [Cow<'a, [Instance]>; 2] {
        let Some(subset) = &self.config.subset else {
            return [listed.into(), held.into()];
        };
        let mut all = [listed, held].concat();
        all.sort_by(|a, b| a.id().cmp(b.id()));
        let what = format_args!("{subset:?}: all instances get an endpoint");
        let selected = contain(what, || subset.select(&all)).unwrap_or_else(|| all.clone());
        let ids: HashSet<_> = selected.iter().map(Instance::id).collect();
        [listed, held].map(|all| all.iter().filter(|i| ids.contains(i.id())).cloned().collect())
    }

    /// Settles all members anew when worse ones begin or cease to share the load.
    fn share(&mut self) {
        let is_below = |n: usize, percent: u8| n * 100 < self.numbers.all * usize::from(percent);
        let Numbers { all, held, critical } = self.numbers;
        let sharing = Sharing {
            held: is_below(all - held, self.config.held_below),
            critical: is_below(all - critical, self.config.panic_below),
        };
        if mem::replace(&mut self.sharing, sharing) != sharing {
            let ids: Vec<_> = self.members.keys().cloned().collect();
            for id in ids {
                self.settle(&id);
            }
        }
    }

    /// Adds it to the numbers; or takes it away: before it changes, or leaves.
    fn count(&mut self, id: &InstanceId, sign: isize) {
        if let Some(member) = self.members.get(id).filter(|it| it.instance.weight() > 0) {
            let add =
                |n: &mut usize, is: bool| *n = n.saturating_add_signed(sign * isize::from(is));
            add(&mut self.numbers.all, true);
            add(&mut self.numbers.held, member.held);
            add(&mut self.numbers.critical, is_critical(&member.instance));
        }
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        let all: Vec<_> = self.members.iter().map(|(id, m)| (id.clone(), m.held)).collect();
        for (id, held) in all {
            self.leave(&id, held);
        }
        self.effects.wake = true;
    }

    fn put(&mut self, instance: &Instance, held: bool, is_new_set: bool) {
        let id = instance.id();
        if let Some(member) = self.members.get(id)
            && !member.instance.same_address(instance)
        {
            let was_held = member.held;
            self.leave(id, was_held);
            self.end_ramp(id, true);
        }
        self.count(id, -1);
        if let Some(member) = self.members.get_mut(id) {
            if member.instance.weight() != instance.weight() {
                warn_of_weight(instance);
            }
            let before = mem::replace(&mut member.instance, instance.clone());
            member.held = held;
            if let Some(endpoint) = &member.endpoint {
                let weight = endpoint.weight();
                endpoint.set_payload(instance.clone());
                if let Some((tier, _)) = member.place {
                    self.tiers.get_mut(tier).touch(weight, endpoint.weight());
                }
            }
            self.restart_ramp(&before, instance);
        } else {
            warn_of_weight(instance);
            self.begin_ramp(instance, is_new_set);
            let endpoint = Draining::give_back(&mut self.draining, instance);
            let is_made = endpoint.is_some();
            if let Some(endpoint) = &endpoint {
                self.resume(&endpoint.stats);
            }
            let member = Member {
                instance: instance.clone(),
                held,
                endpoint,
                error: None,
                place: None,
                run: 0,
                due: None,
                backoff: Backoff::new(self.config.initial_backoff, self.config.max_backoff),
                probing: false,
                last_probe: None,
                streaks: Streaks::default(),
            };
            self.members.insert(id.clone(), member);
            match is_made {
                // What its endpoint had when it left is of the past.
                true => self.share_from_now(id),
                false => self.make(id),
            }
        }
        self.count(id, 1);
        self.settle(id);
        self.effects.publish = true;
    }

    /// Removes it, unless it has changed between listed and held meanwhile.
    pub(super) fn leave(&mut self, id: &InstanceId, held: bool) {
        if self.members.get(id).is_none_or(|member| member.held != held) {
            return;
        }
        self.count(id, -1);
        self.unplace(id);
        self.tiers.set_creating(id, None);
        self.schedule(id, None);
        self.suspend(id);
        if let Some(member) = self.members.remove(id) {
            self.effects.changes.extend(member.enter(EndpointState::Draining, self.now));
            self.effects.gone.extend(member.endpoint);
            self.effects.stop.push(id.clone());
            self.end_ramp(id, false);
            self.effects.publish = true;
        }
    }

    /// Puts its endpoint where it belongs now.
    pub(super) fn settle(&mut self, id: &InstanceId) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        self.effects.changes.extend(member.enter(member.state(), self.now));
        let is_creating = member.endpoint.is_none() && member.instance.weight() > 0;
        self.tiers.set_creating(id, is_creating.then(|| member.instance.clone()));
        let tier = member.tier(self.sharing);
        if tier != member.place.map(|(tier, _)| tier) {
            self.effects.publish = true;
            self.unplace(id);
            if let Some(tier) = tier
                && let Some(member) = self.members.get_mut(id)
                && let Some(endpoint) = &member.endpoint
            {
                let set = self.tiers.get_mut(tier);
                member.place = Some((tier, set.len()));
                set.push(Arc::clone(endpoint));
            }
        }
        self.open(id);
    }

    pub(super) fn unplace(&mut self, id: &InstanceId) {
        let place = self.members.get_mut(id).and_then(|member| mem::take(&mut member.place));
        let Some((tier, index)) = place else {
            return;
        };
        let moved = self.tiers.get_mut(tier).swap_remove(index);
        if let Some(moved) = moved
            && let Some(member) = self.members.get_mut(&moved.stats.id)
        {
            member.place = Some((tier, index));
        }
    }
}

impl<S> Member<S> {
    /// Whether that is the key of its endpoint.
    pub(super) fn has_key(&self, key: u64) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.stats.key == key)
    }

    /// Records the state of its endpoint, and returns what that changes.
    fn enter(&self, state: EndpointState, since: Instant) -> Option<Change> {
        let stats = &self.endpoint.as_ref()?.stats;
        let ejection = || Some(Failure::new(stats.ejection()?.reason.to_string().into()));
        let why = match state {
            EndpointState::Ejected => stats.check_failure().or_else(ejection),
            _ => self.error.clone(),
        };
        let to = Life { state, since, why };
        let from = stats.enter(to.clone())?;
        Some(Change { stats: Arc::clone(stats), from, to })
    }

    pub(in crate::endpointer) fn state(&self) -> EndpointState {
        let Some(endpoint) = &self.endpoint else {
            return EndpointState::Creating;
        };
        match endpoint.stats.readiness() {
            _ if !self.instance.accepts_requests() => EndpointState::Ineligible,
            Readiness::Down => EndpointState::Down,
            _ if self.held => EndpointState::Held,
            _ if is_out(endpoint) => EndpointState::Ejected,
            Readiness::Connecting => EndpointState::Connecting,
            Readiness::Ready => EndpointState::Ready,
        }
    }

    fn tier(&self, sharing: Sharing) -> Option<Tier> {
        let endpoint = self.endpoint.as_ref().filter(|_| self.instance.weight() > 0)?;
        let is_eligible =
            self.instance.accepts_requests() || (sharing.critical && is_critical(&self.instance));
        Some(match endpoint.is(Readiness::Down) {
            _ if self.instance.status() == InstanceStatus::Draining => Tier::Draining,
            _ if !is_eligible => Tier::Ineligible,
            true => Tier::Down,
            false if self.held && !sharing.held => Tier::Held,
            false if is_out(endpoint) => Tier::Ejected,
            false => Tier::Ready,
        })
    }
}

/// Whether its requests or its active checks have failed too often.
fn is_out<S>(endpoint: &Endpoint<S>) -> bool {
    endpoint.stats.health.is_ejected() || endpoint.stats.check_failure().is_some()
}

fn is_critical(instance: &Instance) -> bool {
    instance.status() == InstanceStatus::Critical
}

fn warn_of_weight(instance: &Instance) {
    if instance.weight() > MAX_WEIGHT {
        let (id, weight) = (instance.id(), instance.weight());
        tracing::warn!(instance = %id, weight, "weight out of range: {MAX_WEIGHT} is used");
    }
}
