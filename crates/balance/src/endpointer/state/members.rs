//! Who is a member, and its place in the tiers.

use std::{mem, sync::Arc};

use tower_sd_core::{Backoff, Instance, InstanceId, Snapshot};

use super::{Effects, Member, State, is_fit};
use crate::endpointer::{Readiness, Tier, diff::diff, drain::Draining};

impl<S: Clone + Send + Sync + 'static> State<S> {
    /// Makes the members those of `snapshot`.
    pub(super) fn apply(&mut self, snapshot: &Snapshot, effects: &mut Effects<S>) {
        if self.closed {
            return;
        }
        let before = self.snapshot.replace(snapshot.clone());
        let (was_listed, was_held, was_synced) = match &before {
            Some(before) => (before.instances(), before.held(), before.freshness().is_synced()),
            None => (&[][..], &[][..], false),
        };
        // Requests that wait for the first snapshot have to see it although it may be empty.
        effects.wake |= was_synced != snapshot.freshness().is_synced();
        let listed = diff(was_listed, snapshot.instances());
        let held = diff(was_held, snapshot.held());
        for instance in listed.put {
            self.put(instance, false, effects);
        }
        for instance in held.put {
            self.put(instance, true, effects);
        }
        for instance in listed.gone {
            self.leave(instance.id(), false, effects);
        }
        for instance in held.gone {
            self.leave(instance.id(), true, effects);
        }
    }

    pub(super) fn close(&mut self, effects: &mut Effects<S>) {
        self.closed = true;
        let all: Vec<_> = self.members.iter().map(|(id, m)| (id.clone(), m.held)).collect();
        for (id, held) in all {
            self.leave(&id, held, effects);
        }
        effects.wake = true;
    }

    fn put(&mut self, instance: &Instance, held: bool, effects: &mut Effects<S>) {
        let id = instance.id();
        if let Some(member) = self.members.get(id)
            && !member.instance.same_address(instance)
        {
            let was_held = member.held;
            self.leave(id, was_held, effects);
        }
        if let Some(member) = self.members.get_mut(id) {
            member.instance = instance.clone();
            member.held = held;
            if let Some(endpoint) = &member.endpoint {
                endpoint.set_payload(instance.clone());
            }
            if let Some((tier, _)) = member.place {
                self.tiers.get_mut(tier).touch();
            }
        } else {
            let endpoint = Draining::give_back(&mut self.draining, instance);
            let is_made = endpoint.is_some();
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
                n_refusals: 0,
            };
            self.members.insert(id.clone(), member);
            if !is_made {
                self.make(id, effects);
            }
        }
        self.settle(id);
        effects.publish = true;
    }

    /// Removes it, unless it has changed between listed and held meanwhile.
    pub(super) fn leave(&mut self, id: &InstanceId, held: bool, effects: &mut Effects<S>) {
        if self.members.get(id).is_none_or(|member| member.held != held) {
            return;
        }
        self.unplace(id);
        self.schedule(id, None);
        if let Some(member) = self.members.remove(id) {
            effects.gone.extend(member.endpoint);
            effects.stop.push(id.clone());
            effects.publish = true;
        }
    }

    /// Puts its endpoint where it belongs now; `true` when that is another tier.
    pub(super) fn settle(&mut self, id: &InstanceId) -> bool {
        let Some(member) = self.members.get(id) else {
            return false;
        };
        let tier = member.tier();
        if tier == member.place.map(|(tier, _)| tier) {
            return false;
        }
        self.unplace(id);
        if let Some(tier) = tier
            && let Some(member) = self.members.get_mut(id)
            && let Some(endpoint) = &member.endpoint
        {
            let set = self.tiers.get_mut(tier);
            member.place = Some((tier, set.len()));
            set.push(Arc::clone(endpoint));
        }
        true
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

    pub(super) fn member_with(&mut self, id: &InstanceId, key: u64) -> Option<&mut Member<S>> {
        let has_key = |m: &&mut Member<S>| m.endpoint.as_ref().is_some_and(|e| e.stats.key == key);
        self.members.get_mut(id).filter(has_key)
    }
}

impl<S> Member<S> {
    fn tier(&self) -> Option<Tier> {
        let endpoint = self.endpoint.as_ref().filter(|_| self.instance.weight() > 0)?;
        Some(match endpoint.is(Readiness::Down) {
            _ if !is_fit(&self.instance) => Tier::Unfit,
            true => Tier::Down,
            false if self.held => Tier::Held,
            false => Tier::Ready,
        })
    }
}
