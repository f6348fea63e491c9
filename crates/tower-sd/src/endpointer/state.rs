use std::{
    collections::HashMap,
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tower_sd_core::{BoxError, Instance, InstanceId, Snapshot, Status};

use super::{Draining, Endpoint, Tiers, diff::diff};

/// Who is a member, and where in the [`Tiers`] its endpoint stands. Pure: no I/O, no lock, no clock.
#[derive(Debug)]
pub(super) struct State<S> {
    pub(super) members: HashMap<InstanceId, Member<S>>,
    pub(super) tiers: Tiers<S>,
    /// The last one applied.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) draining: Vec<Draining>,
    n_made: u64,
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(super) struct Member<S> {
    pub(super) instance: Instance,
    pub(super) held: bool,
    pub(super) endpoint: Option<Arc<Endpoint<S>>>,
    place: Place,
    /// Names the run of the factory whose service is awaited; what an older run brings is dropped.
    pub(super) making: u64,
    /// Why the factory or the last connection failed.
    pub(super) error: Option<Arc<BoxError>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Nowhere,
    Ready(usize),
    Held,
    Down,
}

/// What a change asks of its caller. Dropped outside of the lock: it owns what may be the last of a service.
#[derive(Debug)]
#[must_use]
pub(super) struct Todo<S> {
    pub(super) changed: bool,
    pub(super) make: Vec<Make>,
    pub(super) stop: Vec<InstanceId>,
    pub(super) gone: Vec<Arc<Endpoint<S>>>,
    /// Services that nobody awaits any more.
    pub(super) spare: Vec<S>,
}

#[derive(Clone, Debug)]
pub(super) struct Make {
    pub(super) instance: Instance,
    pub(super) making: u64,
}

impl<S: 'static> State<S> {
    /// Makes the members those of `snapshot`.
    pub(super) fn apply(&mut self, snapshot: &Snapshot) -> Todo<S> {
        let mut todo = Todo::default();
        if self.closed {
            return todo;
        }
        let before = self.snapshot.replace(snapshot.clone());
        let (was_listed, was_held, was_synced) = match &before {
            Some(before) => (before.instances(), before.held(), before.freshness().is_synced()),
            None => (&[][..], &[][..], false),
        };
        // Who waits for the first snapshot has to know of it although nobody may be in it.
        todo.changed = was_synced != snapshot.freshness().is_synced();
        let listed = diff(was_listed, snapshot.instances());
        let held = diff(was_held, snapshot.held());
        for instance in listed.put {
            self.put(instance, false, &mut todo);
        }
        for instance in held.put {
            self.put(instance, true, &mut todo);
        }
        for instance in listed.gone {
            self.leave(instance.id(), false, &mut todo);
        }
        for instance in held.gone {
            self.leave(instance.id(), true, &mut todo);
        }
        todo
    }

    /// Takes what a factory has made.
    pub(super) fn made(&mut self, id: &InstanceId, making: u64, service: S) -> Todo<S> {
        let mut todo = Todo::default();
        let awaited =
            self.members.get_mut(id).filter(|m| m.endpoint.is_none() && m.making == making);
        let Some(member) = awaited else {
            todo.spare.push(service);
            return todo;
        };
        let endpoint = Endpoint::new(service, member.instance.clone());
        member.endpoint = Some(Arc::new(endpoint));
        member.error = None;
        self.settle(id);
        todo.changed = true;
        todo
    }

    /// Remembers why a factory has failed.
    pub(super) fn failed(&mut self, id: &InstanceId, making: u64, error: BoxError) {
        if let Some(member) = self.members.get_mut(id).filter(|m| m.making == making) {
            member.error = Some(Arc::new(error));
        }
    }

    /// A connection was refused: a held instance leaves, another is down. `true`: it has just become down.
    pub(super) fn refused(
        &mut self,
        id: &InstanceId,
        key: u64,
        error: BoxError,
    ) -> (Todo<S>, bool) {
        let mut todo = Todo::default();
        let Some(member) = self.member_with(id, key) else {
            return (todo, false);
        };
        member.error = Some(Arc::new(error));
        if member.held {
            // It is no member again before the registry has listed it: held instances do not change.
            self.leave(id, true, &mut todo);
            return (todo, false);
        }
        let newly = !member.endpoint.as_ref().is_some_and(|e| e.stats.down.swap(true, Relaxed));
        if newly {
            self.settle(id);
            todo.changed = true;
        }
        (todo, newly)
    }

    /// It has connected.
    pub(super) fn connected(&mut self, id: &InstanceId, key: u64) -> Todo<S> {
        let mut todo = Todo::default();
        if let Some(member) = self.member_with(id, key)
            && member.endpoint.as_ref().is_some_and(|e| e.stats.down.swap(false, Relaxed))
        {
            member.error = None;
            self.settle(id);
            todo.changed = true;
        }
        todo
    }

    /// Everybody leaves, for good.
    pub(super) fn close(&mut self) -> Todo<S> {
        let mut todo = Todo::default();
        self.closed = true;
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            let held = self.members.get(&id).is_some_and(|member| member.held);
            self.leave(&id, held, &mut todo);
        }
        todo.changed = true;
        todo
    }

    /// Takes it from its place and puts it back.
    pub(super) fn replace(&mut self, id: &InstanceId) -> Todo<S> {
        self.unplace(id);
        self.settle(id);
        Todo { changed: true, ..Todo::default() }
    }

    fn put(&mut self, instance: &Instance, held: bool, todo: &mut Todo<S>) {
        let id = instance.id();
        if let Some(member) = self.members.get(id)
            && !member.instance.same_address(instance)
        {
            let was_held = member.held;
            self.leave(id, was_held, todo);
        }
        if let Some(member) = self.members.get_mut(id) {
            member.instance = instance.clone();
            member.held = held;
            if let Some(endpoint) = &member.endpoint {
                endpoint.set_payload(instance.clone());
            }
        } else {
            let endpoint = Draining::give_back(&mut self.draining, instance);
            self.n_made += 1;
            if endpoint.is_none() {
                todo.make.push(Make { instance: instance.clone(), making: self.n_made });
            }
            let member = Member {
                instance: instance.clone(),
                held,
                endpoint,
                place: Place::Nowhere,
                making: self.n_made,
                error: None,
            };
            self.members.insert(id.clone(), member);
        }
        self.settle(id);
        todo.changed = true;
    }

    /// Removes it, unless it has changed between listed and held meanwhile.
    fn leave(&mut self, id: &InstanceId, held: bool, todo: &mut Todo<S>) {
        if self.members.get(id).is_none_or(|member| member.held != held) {
            return;
        }
        self.unplace(id);
        if let Some(member) = self.members.remove(id) {
            match member.endpoint {
                Some(endpoint) => todo.gone.push(endpoint),
                None => todo.stop.push(id.clone()),
            }
            todo.changed = true;
        }
    }

    /// Puts its endpoint where it belongs now.
    fn settle(&mut self, id: &InstanceId) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let wanted = member.wanted();
        if mem::discriminant(&wanted) == mem::discriminant(&member.place) {
            return;
        }
        self.unplace(id);
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let Some(endpoint) = member.endpoint.clone() else {
            return;
        };
        member.place = match wanted {
            Place::Ready(_) => {
                self.tiers.ready.push(endpoint);
                Place::Ready(self.tiers.ready.len() - 1)
            }
            Place::Held => {
                Arc::make_mut(&mut self.tiers.held).push(endpoint);
                wanted
            }
            Place::Down => {
                Arc::make_mut(&mut self.tiers.down).push(endpoint);
                wanted
            }
            Place::Nowhere => wanted,
        };
    }

    fn unplace(&mut self, id: &InstanceId) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        match mem::replace(&mut member.place, Place::Nowhere) {
            Place::Nowhere => {}
            Place::Held => remove(&mut self.tiers.held, id),
            Place::Down => remove(&mut self.tiers.down, id),
            Place::Ready(index) => {
                let moved = self.tiers.ready.swap_remove(index);
                if let Some(moved) = moved
                    && let Some(member) = self.members.get_mut(&moved.stats.id)
                {
                    member.place = Place::Ready(index);
                }
            }
        }
    }

    fn member_with(&mut self, id: &InstanceId, key: u64) -> Option<&mut Member<S>> {
        let has_key = |m: &&mut Member<S>| m.endpoint.as_ref().is_some_and(|e| e.stats.key == key);
        self.members.get_mut(id).filter(has_key)
    }
}

impl<S> Member<S> {
    fn wanted(&self) -> Place {
        match &self.endpoint {
            None => Place::Nowhere,
            Some(_) if !is_fit(&self.instance) => Place::Nowhere,
            Some(_) if self.held => Place::Held,
            Some(endpoint) if endpoint.stats.is_down() => Place::Down,
            Some(_) => Place::Ready(0),
        }
    }
}

/// Whether the instance wants requests.
pub(super) fn is_fit(instance: &Instance) -> bool {
    matches!(instance.status(), Status::Passing | Status::Warning) && instance.weight() > 0
}

fn remove<S>(tier: &mut Arc<Vec<Arc<Endpoint<S>>>>, id: &InstanceId) {
    Arc::make_mut(tier).retain(|endpoint| endpoint.stats.id != *id);
}

impl<S> Default for State<S> {
    fn default() -> Self {
        Self {
            members: HashMap::new(),
            tiers: Tiers::default(),
            snapshot: None,
            draining: Vec::new(),
            n_made: 0,
            closed: false,
        }
    }
}

impl<S> Default for Todo<S> {
    fn default() -> Self {
        Self {
            changed: false,
            make: Vec::new(),
            stop: Vec::new(),
            gone: Vec::new(),
            spare: Vec::new(),
        }
    }
}
