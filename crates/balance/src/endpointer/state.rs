//! The membership of an endpointer: endpoints, and their [`Tier`]s.
//!
//! Pure: events go in, effects come out; no I/O, no task, no lock.

mod effects;
mod judged;
mod members;
mod slow_start;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use fastrand::Rng;
use tokio::time::Instant;
use tower_sd_core::{Backoff, BoxError, Instance, InstanceId, Snapshot};

pub(super) use self::effects::{Change, Effects};
use super::{
    Endpoint, EndpointStats, EndpointerConfig, Readiness, Tier, Tiers,
    contain::contain,
    drain::Draining,
    ejection::Judge,
    signal::{Created, Make, PollReady, Probe, Signal, Streaks, Unready},
};
use crate::error::Failure;

/// See the module.
pub(super) struct State<S> {
    /// The moment of what is applied.
    pub(super) now: Instant,
    /// What has to follow from what was applied so far.
    pub(super) effects: Effects<S>,
    pub(super) members: HashMap<InstanceId, Member<S>>,
    pub(super) tiers: Tiers<S>,
    /// The last one applied.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) draining: Vec<Draining>,
    pub(super) closed: bool,
    config: EndpointerConfig,
    n_runs: u64,
    /// When which member is probed, or its factory run, again.
    due: BTreeSet<(Instant, InstanceId)>,
    poll_ready: Option<PollReady<S>>,
    numbers: Numbers,
    sharing: Sharing,
    judge: Arc<Judge>,
    /// When each ejection is over, or another request may decide about it.
    ejected: BTreeMap<InstanceId, Instant>,
    /// Nothing but ejected endpoints is usable.
    pub(super) panic: bool,
    ramps: Ramps,
    rng: Rng,
}

pub(super) struct Member<S> {
    pub(super) instance: Instance,
    pub(super) held: bool,
    pub(super) endpoint: Option<Arc<Endpoint<S>>>,
    /// Why the factory or the last connection failed.
    pub(super) error: Option<Failure>,
    place: Option<(Tier, usize)>,
    /// The latest run of the factory; the result of an older one is dropped.
    run: u64,
    due: Option<Instant>,
    backoff: Backoff,
    probing: bool,
    last_probe: Option<Instant>,
    streaks: Streaks,
}

/// An input of [`State::on`].
pub(super) enum Event<S> {
    Snapshot(Snapshot),
    /// The end of one run of the factory.
    Created {
        id: InstanceId,
        run: u64,
        result: Result<Created<S>, BoxError>,
    },
    /// From the request path.
    Signal {
        id: InstanceId,
        key: u64,
        signal: Signal<S>,
        poll_ready: PollReady<S>,
    },
    /// The end of one probe.
    Probed {
        id: InstanceId,
        key: u64,
        result: Result<(), Unready>,
    },
    /// All members leave, for good.
    Close,
}

impl<S: Clone + Send + Sync + 'static> State<S> {
    pub(super) fn new(config: EndpointerConfig, judge: Arc<Judge>) -> Self {
        Self {
            now: Instant::now(),
            effects: Effects::default(),
            members: HashMap::new(),
            tiers: Tiers::new(Arc::clone(&judge)),
            snapshot: None,
            draining: Vec::new(),
            closed: false,
            config,
            n_runs: 0,
            due: BTreeSet::new(),
            poll_ready: None,
            numbers: Numbers::default(),
            sharing: Sharing::default(),
            judge,
            ejected: BTreeMap::new(),
            panic: false,
            ramps: Ramps::default(),
            rng: Rng::new(),
        }
    }

    pub(super) fn on(&mut self, event: Event<S>) {
        match event {
            Event::Snapshot(snapshot) => self.apply(&snapshot),
            Event::Created { id, run, result } => self.created(&id, run, result),
            Event::Signal { id, key, signal, poll_ready } => {
                self.poll_ready = Some(poll_ready);
                self.signalled(&id, key, signal);
            }
            Event::Probed { id, key, result } => self.probed(&id, key, result),
            Event::Close => self.close(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let drained = self.draining.iter().filter_map(|left| left.until).min();
        let due = self.due.first().map(|(at, _)| *at);
        let ejected = self.ejected.values().min().copied();
        drained.into_iter().chain(due).chain(ejected).chain(self.ramps.next).min()
    }

    fn created(&mut self, id: &InstanceId, run: u64, result: Result<Created<S>, BoxError>) {
        let Some(member) = self.members.get_mut(id).filter(|member| member.run == run) else {
            self.effects.spare.extend(result.ok().map(|created| created.service));
            return;
        };
        let Created { service, takes_guards, check } = match result {
            Ok(created) => created,
            Err(error) => {
                member.error = Some(Failure::new(error));
                if member.endpoint.is_none() {
                    self.schedule_next(id);
                }
                return;
            }
        };
        let instance = member.instance.clone();
        let before = member.endpoint.take();
        let stats = match &before {
            Some(before) => Arc::clone(&before.stats),
            None => EndpointStats::new(id.clone(), takes_guards, Arc::clone(&self.judge)).into(),
        };
        stats.attach(check);
        member.endpoint = Some(Arc::new(Endpoint::new(service, stats, instance)));
        match before {
            None => {
                member.error = None;
                self.share_from_now(id);
                self.settle(id);
            }
            // It has failed for good: no request gets its successor before that has connected.
            Some(before) => {
                self.effects.replaced.push(before);
                self.unplace(id);
                self.settle(id);
                self.probe(id);
            }
        }
        self.effects.publish = true;
    }

    fn signalled(&mut self, id: &InstanceId, key: u64, signal: Signal<S>) {
        let Some(member) = self.members.get_mut(id).filter(|member| member.has_key(key)) else {
            if let Signal::Pending(service) = signal {
                self.effects.spare.push(service);
            }
            return;
        };
        match signal {
            Signal::Connected => self.probed(id, key, Ok(())),
            Signal::Pending(service) => {
                let is_new = !mem::replace(&mut member.probing, true);
                match self.poll_ready.filter(|_| is_new) {
                    Some(poll_ready) => {
                        self.effects.probe.push(Probe { id: id.clone(), key, service, poll_ready });
                    }
                    None => self.effects.spare.push(service),
                }
            }
            Signal::Refused(error) => self.unready(id, Unready::Refused(error)),
            Signal::Wanted => {
                // One that was probed just now is probed again when the shortest pause is over.
                let shortest = member.backoff.initial();
                let earliest = member.last_probe.map_or(self.now, |last| last + shortest);
                let at = member.due.map_or(earliest, |due| due.min(earliest));
                self.schedule(id, Some(at));
            }
        }
    }

    fn probed(&mut self, id: &InstanceId, key: u64, result: Result<(), Unready>) {
        let Some(member) = self.members.get_mut(id).filter(|member| member.has_key(key)) else {
            return;
        };
        member.probing = false;
        member.last_probe = Some(self.now);
        let Some(endpoint) = &member.endpoint else {
            return;
        };
        endpoint.stats.probed();
        self.effects.wake = true;
        // Pending with requests in flight is busy, which is no failure.
        let is_busy = matches!(&result, Err(Unready::Late(_)) if endpoint.in_flight() > 0);
        match result {
            Err(unready) if !is_busy => self.unready(id, unready),
            Ok(()) | Err(_) => {
                endpoint.stats.set_readiness(Readiness::Ready);
                endpoint.stats.connected();
                member.error = None;
                member.streaks = Streaks::default();
                self.schedule(id, None);
                self.settle(id);
            }
        }
    }

    /// It is down from now on; a held one that refuses again and again leaves.
    fn unready(&mut self, id: &InstanceId, unready: Unready) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        member.streaks.add(&unready);
        let is_dead = member.streaks.is_dead(&unready);
        member.error = Some(unready.into_failure());
        if member.held && member.streaks.is_closed() {
            // It is no member again before the registry has listed it: held instances do not
            // change.
            self.leave(id, true);
            self.effects.refresh = true;
            return;
        }
        if let Some(endpoint) = &member.endpoint {
            endpoint.stats.set_readiness(Readiness::Down);
            endpoint.stats.refused();
        }
        if is_dead {
            self.make(id);
        }
        self.settle(id);
        // Each time, not the first alone: the instance may move later. The following loop bounds
        // the rate.
        self.effects.refresh = true;
        self.schedule_next(id);
    }

    /// Acts on the deadlines that have passed.
    pub(super) fn expire(&mut self) {
        self.end_ejections();
        self.ramp();
        while let Some((_, id)) = self.due.first().filter(|(at, _)| *at <= self.now).cloned() {
            self.schedule(&id, None);
            match self.members.get(&id).is_some_and(|member| member.endpoint.is_some()) {
                true => self.probe(&id),
                false => self.make(&id),
            }
        }
        let is_over = |left: &mut Draining| left.until.is_some_and(|until| until <= self.now);
        self.effects.expired.extend(self.draining.extract_if(.., is_over));
    }

    /// Runs the factory.
    fn make(&mut self, id: &InstanceId) {
        if let Some(member) = self.members.get_mut(id) {
            self.n_runs += 1;
            member.run = self.n_runs;
            self.effects.make.push(Make { instance: member.instance.clone(), run: self.n_runs });
        }
    }

    fn probe(&mut self, id: &InstanceId) {
        let (Some(member), Some(poll_ready)) = (self.members.get_mut(id), self.poll_ready) else {
            return;
        };
        if let Some(endpoint) = &member.endpoint
            && !member.probing
        {
            let key = endpoint.stats.key;
            let Some(service) = contain("clone of a service", || endpoint.service.clone()) else {
                return self.schedule_next(id);
            };
            member.probing = true;
            self.effects.probe.push(Probe { id: id.clone(), key, service, poll_ready });
        }
        self.schedule(id, None);
    }

    fn schedule_next(&mut self, id: &InstanceId) {
        if let Some(member) = self.members.get_mut(id) {
            let at = self.now.checked_add(member.backoff.next_pause());
            self.schedule(id, at);
        }
    }

    fn schedule(&mut self, id: &InstanceId, at: Option<Instant>) {
        if let Some(member) = self.members.get_mut(id) {
            if let Some(before) = mem::replace(&mut member.due, at) {
                self.due.remove(&(before, id.clone()));
            }
            self.due.extend(at.map(|at| (at, id.clone())));
        }
    }
}

/// Of slow starts.
#[derive(Default)]
struct Ramps {
    /// When the start of each member began; `None`: it has none.
    seen: BTreeMap<InstanceId, Seen>,
    /// Those below their full weight.
    growing: BTreeSet<InstanceId>,
    next: Option<Instant>,
}

struct Seen {
    begun: Option<Instant>,
    left: Option<Instant>,
}

/// How many members have a weight. Kept up by difference: an update changes one of many.
#[derive(Clone, Copy, Default)]
struct Numbers {
    all: usize,
    held: usize,
    critical: usize,
}

/// Which of the worse members are as good as the others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Sharing {
    held: bool,
    critical: bool,
}
