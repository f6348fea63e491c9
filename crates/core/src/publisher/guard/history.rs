use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{Instance, InstanceId};

/// What happened within the guard's window.
#[derive(Debug, Default)]
pub(super) struct History {
    window: Duration,
    /// How many instances were offered, and until when each number counts.
    sizes: VecDeque<(Instant, usize)>,
    /// Instances that are no longer offered, and when they left.
    removed: VecDeque<(Instant, Instance)>,
}

impl History {
    pub(super) fn new(window: Duration) -> Self {
        Self { window, ..Self::default() }
    }

    pub(super) fn remember_size(&mut self, now: Instant, size: usize) {
        self.forget(now);
        if !self.window.is_zero() {
            // Only sizes above all later ones can ever be the largest.
            while self.sizes.back().is_some_and(|(_, earlier)| *earlier <= size) {
                self.sizes.pop_back();
            }
            self.sizes.push_back((now + self.window, size));
        }
    }

    pub(super) fn remember_removed(&mut self, now: Instant, instance: Instance) {
        if !self.window.is_zero() {
            self.removed.push_back((now, instance));
        }
    }

    /// An instance that had stopped accepting requests before it left is no loss.
    pub(super) fn forget_removed(&mut self, id: &InstanceId) {
        self.removed.retain(|(_, instance)| instance.id() != id);
    }

    /// The largest size within the window.
    pub(super) fn largest(&mut self, now: Instant) -> usize {
        self.forget(now);
        self.sizes.front().map_or(0, |(_, size)| *size)
    }

    /// Takes the instances whose removal belongs to a loss that happens now: within the window when
    /// nothing is left, otherwise without a calm gap before it. An instance that left alone before
    /// was no part of the loss.
    pub(super) fn take_removed(&mut self, now: Instant, nothing_left: bool) -> Vec<Instance> {
        self.forget(now);
        let (mut taken, mut last) = (Vec::new(), now);
        while let Some((at, _)) = self.removed.back() {
            if !nothing_left && last.duration_since(*at) > self.window / CALM {
                break;
            }
            last = *at;
            taken.extend(self.removed.pop_back().map(|(_, instance)| instance));
        }
        taken
    }

    fn forget(&mut self, now: Instant) {
        while self.sizes.front().is_some_and(|(until, _)| *until <= now) {
            self.sizes.pop_front();
        }
        while self.removed.front().is_some_and(|(at, _)| *at + self.window <= now) {
            self.removed.pop_front();
        }
    }
}

/// A gap of this part of the window separates two losses.
const CALM: u32 = 4;
