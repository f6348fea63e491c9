//! Slow start: a new member begins with a part of its weight.

use std::time::Duration;

use tokio::time::Instant;
use tower_sd_core::{Instance, InstanceId};

use super::{Seen, State};

impl<S: Clone + Send + Sync + 'static> State<S> {
    fn window(&self) -> Duration {
        self.config.slow_start.min(MAX_WINDOW)
    }

    /// What has left for as long as a ramp takes begins anew.
    pub(super) fn forget_ramps(&mut self) {
        let (now, window) = (self.now, self.window());
        let is_recent = |seen: &Seen| seen.left.is_none_or(|left| now - left < window);
        self.ramps.seen.retain(|_, seen| is_recent(seen));
    }

    /// A member is there; `is_warm` when it is one of a set that is wholly new.
    pub(super) fn begin_ramp(&mut self, instance: &Instance, is_warm: bool) {
        if self.window().is_zero() {
            return;
        }
        let begun = match self.ramps.seen.get(instance.id()) {
            // It was gone for a moment.
            Some(seen) => seen.begun,
            None if is_warm => None,
            None => begun(instance, self.now),
        };
        self.ramps.seen.insert(instance.id().clone(), Seen { begun, left: None });
        if begun.is_some() {
            self.ramps.growing.insert(instance.id().clone());
            self.ramps.next = Some(self.now);
        }
    }

    /// It was started anew at its address: its ramp begins again.
    pub(super) fn restart_ramp(&mut self, before: &Instance, instance: &Instance) {
        if before.started_at_ms() < instance.started_at_ms() && before.started_at_ms().is_some() {
            self.ramps.seen.remove(instance.id());
            self.begin_ramp(instance, false);
        }
    }

    /// It leaves; `is_replaced` when another process takes its id.
    pub(super) fn end_ramp(&mut self, id: &InstanceId, is_replaced: bool) {
        self.ramps.growing.remove(id);
        if is_replaced {
            self.ramps.seen.remove(id);
        } else if let Some(seen) = self.ramps.seen.get_mut(id) {
            seen.left = Some(self.now);
        }
    }

    /// Lets the shares grow when it is time.
    pub(super) fn ramp(&mut self) {
        let window = self.window();
        if self.ramps.next.is_none_or(|next| next > self.now) {
            return;
        }
        for id in self.ramps.growing.clone() {
            let share = self.share_of(&id);
            if share == WHOLE {
                self.ramps.growing.remove(&id);
            }
            self.effects.publish |= self.set_share(&id, share);
        }
        let is_over = self.ramps.growing.is_empty();
        self.ramps.next = (!is_over).then(|| self.now + (window / STEPS).max(SHORTEST));
    }

    /// It has an endpoint: before it is placed, it has its share.
    pub(super) fn share_from_now(&mut self, id: &InstanceId) {
        let share = self.share_of(id);
        self.set_share(id, share);
    }

    /// What it has now.
    fn share_of(&self, id: &InstanceId) -> u8 {
        let begun = self.ramps.seen.get(id).and_then(|seen| seen.begun);
        begun.map_or(WHOLE, |begun| share(self.now - begun, self.window()))
    }

    /// Whether that is another one.
    fn set_share(&mut self, id: &InstanceId, share: u8) -> bool {
        let Some(member) = self.members.get(id) else {
            return false;
        };
        let Some(endpoint) = &member.endpoint else {
            return false;
        };
        let before = endpoint.weight();
        if !endpoint.stats.set_share(share) {
            return false;
        }
        if let Some((tier, _)) = member.place {
            self.tiers.get_mut(tier).touch(before, endpoint.weight());
        }
        true
    }
}

/// When its ramp has begun; `None`: before any moment.
fn begun(instance: &Instance, now: Instant) -> Option<Instant> {
    let age = instance.started_at_ms().map_or(0, |started| unix_ms().saturating_sub(started));
    now.checked_sub(Duration::from_millis(age))
}

/// Envoy's: linear, from a tenth on.
fn share(age: Duration, window: Duration) -> u8 {
    let percent = age.as_millis() * 100 / window.as_millis().max(1);
    u8::try_from(percent).unwrap_or(WHOLE).clamp(LEAST, WHOLE)
}

#[expect(clippy::disallowed_types, reason = "registries have wall-clock times")]
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or_default()
}

const WHOLE: u8 = 100;
const LEAST: u8 = 10;
/// A step changes a weight by a twentieth, and costs as much as a change of the set.
const STEPS: u32 = 20;
const SHORTEST: Duration = Duration::from_millis(10);
/// Longer ones could not be added to a moment.
const MAX_WINDOW: Duration = Duration::from_secs(86_400);
