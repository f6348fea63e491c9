#[cfg(test)]
mod tests;

use std::{hint::select_unpredictable, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Balancer, Choice, Members, Picker, alias::Alias};
use crate::endpointer::{Decay, EndpointStats};

/// The best of a few random members by requests in flight and latency. The default.
///
/// The cost of a member is (in flight + 1)² × latency, up to the head of the response. The latency
/// is a moving average over 3 s, and over ten successes at least. Of three members, drawn in
/// proportion to their weights, the cheapest is picked.
///
/// - **Failing fast is no merit**: failures never improve a latency, errors of the caller's (HTTP
///   404) do not count, and each rejection (HTTP 429) raises it by a tenth, up to 1 s. An instance
///   that is wrongly set up and answers 401 immediately has nothing in flight, however: under load
///   it gets more than its share.
/// - **Weights**: a member is drawn as often as it is heavy, and its requests in flight count in
///   proportion: one of weight 3 is as three members that share their requests.
/// - **One request at a time**, the fastest of those compared gets it, however small its lead: of
///   three members nearly all. Shares even out with requests in flight.
/// - **A new member** costs as much as those that it is compared with.
/// - **A slow member is tried again**: what was not measured for 3 s drifts to what the others
///   have, and arrives there 7 s later at most.
///
/// Several random choices are Mitzenmacher's "The Power of Two Choices". Costs of this form, with a
/// cube in place of the square, are those of "Cutting Tail Latency in Cloud Data Stores via
/// Adaptive Replica Selection" (NSDI 2015).
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct LeastLoaded {
    choices: usize,
    squared: bool,
    /// `None`: latencies do not count.
    decay: Option<Decay>,
}

impl LeastLoaded {
    /// The best of three by (in flight + 1)² × latency.
    pub fn new() -> Self {
        let decay = Decay { tau: 3.0, peak: false };
        Self { choices: 3, squared: true, decay: Some(decay) }
    }

    /// The best of two by requests in flight, as Envoy's `LEAST_REQUEST` and gRPC's.
    ///
    /// It reads no clock.
    pub fn least_requests() -> Self {
        Self { choices: 2, squared: false, decay: None }
    }

    /// The best of two by (in flight + 1) × peak latency, as Finagle's and tower's.
    ///
    /// The average follows a higher latency immediately, and decays over 10 s.
    pub fn peak_ewma() -> Self {
        let decay = Decay { tau: 10.0, peak: true };
        Self { choices: 2, squared: false, decay: Some(decay) }
    }

    /// Sets how many members are compared, from 1 to 8.
    ///
    /// Defaults to 3 of [`new`](Self::new), and to 2 of the others.
    pub fn choices(mut self, choices: usize) -> Self {
        self.choices = choices.clamp(1, FEW);
        self
    }

    /// Sets the time after which a latency weighs 63 % of the average.
    ///
    /// Defaults to 3 s of [`new`](Self::new), and to 10 s of [`peak_ewma`](Self::peak_ewma).
    /// Clients of one endpointer share the averages: theirs must agree in this.
    pub fn decay(mut self, tau: Duration) -> Self {
        if let Some(decay) = &mut self.decay {
            decay.tau = tau.as_secs_f32();
        }
        self
    }
}

impl Default for LeastLoaded {
    fn default() -> Self {
        Self::new()
    }
}

impl Balancer for LeastLoaded {
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker> {
        let alias = Alias::of(members);
        let loads = match alias {
            Some(_) => loads(&members.weights()),
            None => Vec::new(),
        };
        let arc = members.len().saturating_sub(1) / self.choices.saturating_sub(1).max(1);
        Arc::new(Cheapest { settings: *self, alias, loads, arc })
    }
}

struct Cheapest {
    settings: LeastLoaded,
    /// `None`: all weigh the same.
    alias: Option<Alias>,
    /// What one request in flight counts; empty: one.
    loads: Vec<f64>,
    /// From how many members in a row each further one is drawn.
    arc: usize,
}

/// What is compared: indexes without an allocation, and the cheapest of them.
struct Few {
    indexes: [usize; FEW],
    len: usize,
    cheapest: usize,
    cost: f64,
    /// The latencies of all are known, and up to date.
    is_known: bool,
}

impl Picker for Cheapest {
    #[inline]
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        let LeastLoaded { choices, decay, .. } = self.settings;
        let now = decay.and_then(|decay| choice.measure_by(decay));
        let (len, mut few) = (choice.len(), Few::new(now.is_none()));
        if self.alias.is_none() && len <= choices {
            // Of equal ones the first is picked.
            let start = choice.random(len);
            (start..len)
                .chain(0..start)
                .for_each(|index| _ = self.compare(choice, index, &mut few));
            return self.cheapest(choice, now, &few);
        }
        if self.alias.is_none()
            && now.is_none()
            && choice.excludes_none()
            && let Some(index) = self.cheapest_drawn(choice)
        {
            return Some(index);
        }
        let mut n_drawn = 0;
        for _ in 0..choices + DRAWS {
            let index = self.draw(choice);
            n_drawn += match few.contains(index) {
                // A heavy one is its own rival: that is what gives it its share.
                true => usize::from(self.alias.is_some()),
                false => usize::from(self.compare(choice, index, &mut few)),
            };
            if n_drawn >= choices {
                break;
            }
        }
        self.cheapest(choice, now, &few).or_else(|| choice.any())
    }
}

impl Cheapest {
    /// The cheapest of a few, when all are usable and their latencies are known.
    ///
    /// The first is any, and each of the others one of its own part of the rest: they differ, and
    /// all members are equally likely. Nothing but the result depends on what is drawn, so that the
    /// reads of several members overlap.
    #[inline]
    fn cheapest_drawn(&self, choice: &mut Choice<'_>) -> Option<usize> {
        let len = choice.len();
        let start = choice.random(len);
        let (mut cheapest, mut least) = (start, self.cost(choice, start)??);
        for nth in 0..self.settings.choices - 1 {
            let index = start + 1 + nth * self.arc + choice.random(self.arc);
            let index = index - select_unpredictable(index >= len, len, 0);
            let cost = self.cost(choice, index)??;
            cheapest = select_unpredictable(cost < least, index, cheapest);
            least = least.min(cost);
        }
        Some(cheapest)
    }

    /// That of a usable member, if its latency is known.
    #[inline]
    fn cost(&self, choice: &Choice<'_>, index: usize) -> Option<Option<f64>> {
        let (stats, in_flight) = choice.usable(index)?;
        let latency = self.settings.decay.map_or(Some(1.0), |_| stats.latency.get());
        Some(latency.map(|latency| self.weight(index, in_flight) * latency))
    }

    #[inline]
    fn draw(&self, choice: &mut Choice<'_>) -> usize {
        match &self.alias {
            Some(alias) => alias.draw(choice),
            None => choice.random(choice.len()),
        }
    }

    /// Whether the member is usable.
    #[inline]
    fn compare(&self, choice: &Choice<'_>, index: usize, few: &mut Few) -> bool {
        let cost = self.cost(choice, index);
        cost.inspect(|cost| few.push(index, *cost)).is_some()
    }

    /// What its requests in flight make of the latency of a member.
    #[inline]
    fn weight(&self, index: usize, in_flight: usize) -> f64 {
        let in_flight = f64::from(u32::try_from(in_flight).unwrap_or(u32::MAX));
        let in_flight = in_flight * self.loads.get(index).copied().unwrap_or(1.0) + 1.0;
        if self.settings.squared { in_flight * in_flight } else { in_flight }
    }

    #[inline]
    fn cheapest(&self, choice: &Choice<'_>, now: Option<Instant>, few: &Few) -> Option<usize> {
        match few.is_known {
            true => (few.len > 0).then_some(few.cheapest),
            false => self.cheapest_now(choice, now, few.indexes.get(..few.len)?),
        }
    }

    /// Compares those whose latency is unknown, or out of date.
    fn cheapest_now(
        &self,
        choice: &Choice<'_>,
        now: Option<Instant>,
        indexes: &[usize],
    ) -> Option<usize> {
        let stats = |index: &usize| Some((*index, choice.stats(*index)?));
        let (mut known, mut len) = ([0.0; FEW], 0);
        for latency in indexes.iter().filter_map(stats).filter_map(|(_, it)| it.latency.get()) {
            known[len] = latency;
            len += 1;
        }
        let known = &mut known[..len];
        known.sort_unstable_by(f64::total_cmp);
        // Of two the lower: one of them may be the one that is slow.
        let typical = known.get(known.len().saturating_sub(1) / 2).copied().unwrap_or(1.0);
        let latency = |stats: &EndpointStats| match (now, self.settings.decay) {
            (Some(now), Some(decay)) => stats.latency.drifted(stats.age(now), typical, decay),
            _ => stats.latency.or_typical(typical),
        };
        let priced = indexes.iter().filter_map(stats).map(|(index, stats)| {
            let latency = latency(stats);
            (index, stats, latency, self.weight(index, choice.in_flight(index)) * latency)
        });
        let (cheapest, stats, latency, _) = priced.min_by(|a, b| a.3.total_cmp(&b.3))?;
        // What it had before its drift no longer counts.
        if stats.latency.get().is_some_and(|known| known > latency) {
            stats.latency.go_on(latency);
        }
        Some(cheapest)
    }
}

/// The mean weight in each weight.
fn loads(weights: &[usize]) -> Vec<f64> {
    let number = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let mean = weights.iter().copied().map(number).sum::<f64>() / number(weights.len().max(1));
    weights.iter().map(|&weight| mean / number(weight).max(1.0)).collect()
}

impl Few {
    #[inline]
    fn new(is_known: bool) -> Self {
        Self { indexes: [0; FEW], len: 0, cheapest: 0, cost: f64::INFINITY, is_known }
    }

    #[inline]
    fn push(&mut self, index: usize, cost: Option<f64>) {
        let Some(place) = self.indexes.get_mut(self.len) else {
            return;
        };
        *place = index;
        self.len += 1;
        self.is_known &= cost.is_some();
        let cost = cost.unwrap_or(f64::INFINITY);
        if cost < self.cost || self.len == 1 {
            (self.cheapest, self.cost) = (index, cost);
        }
    }

    #[inline]
    fn contains(&self, index: usize) -> bool {
        self.indexes.iter().take(self.len).any(|it| *it == index)
    }
}

/// More choices than these gain nothing.
const FEW: usize = 8;
/// In vain only for those that were tried for this request, or became down this instant.
const DRAWS: usize = 8;
