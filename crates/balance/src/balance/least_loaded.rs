#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Balancer, Choice, Members, Picker, alias::Alias};
use crate::endpointer::Decay;

/// The best of a few random members by requests in flight and latency. The default.
///
/// The cost of a member is (in flight + 1)² × latency, up to the head of the response. The latency
/// is a moving average over 3 s, and over ten successes at least. Of three members, drawn in
/// proportion to their weights, the cheapest is picked.
///
/// - **Failing fast is no merit**: failures never improve a latency.
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
        let decay = Decay { tau: Duration::from_secs(3), peak: false };
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
        let decay = Decay { tau: Duration::from_secs(10), peak: true };
        Self { choices: 2, squared: false, decay: Some(decay) }
    }

    /// Sets how many members are compared, from 1 to 8.
    pub fn choices(mut self, choices: usize) -> Self {
        self.choices = choices.clamp(1, FEW);
        self
    }

    /// Sets the time after which a latency weighs 63 % of the average.
    pub fn decay(mut self, tau: Duration) -> Self {
        if let Some(decay) = &mut self.decay {
            decay.tau = tau;
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
        Arc::new(Cheapest { settings: *self, alias, loads })
    }
}

struct Cheapest {
    settings: LeastLoaded,
    /// `None`: all weigh the same.
    alias: Option<Alias>,
    /// What one request in flight counts; empty: one.
    loads: Vec<f64>,
}

/// A candidate: its index, what is in flight, and its latency if that is known.
type Candidate = (usize, f64, Option<f64>);

impl Picker for Cheapest {
    #[inline]
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        let LeastLoaded { choices, decay, .. } = self.settings;
        let now = decay.and_then(|decay| choice.measure_by(decay));
        let len = choice.len();
        if self.alias.is_none() && len <= choices {
            // Of equal ones the first is picked.
            let start = choice.random(len);
            let all = (start..len).chain(0..start);
            let few = Few::of(all.filter_map(|index| self.candidate(choice, index)));
            return self.cheapest(choice, now, &few);
        }
        let (mut few, mut n_drawn) = (Few::default(), 0);
        for _ in 0..choices + DRAWS {
            let index = self.draw(choice);
            let is_new = !few.contains(index);
            if is_new && let Some(candidate) = self.candidate(choice, index) {
                few.push(candidate);
                n_drawn += 1;
            } else if !is_new && self.alias.is_some() {
                // A heavy one is its own rival: that is what gives it its share.
                n_drawn += 1;
            }
            if n_drawn >= choices {
                break;
            }
        }
        self.cheapest(choice, now, &few).or_else(|| Self::any(choice))
    }
}

impl Cheapest {
    #[inline]
    fn draw(&self, choice: &mut Choice<'_>) -> usize {
        match &self.alias {
            Some(alias) => alias.draw(choice),
            None => choice.random(choice.len()),
        }
    }

    #[inline]
    fn candidate(&self, choice: &Choice<'_>, index: usize) -> Option<Candidate> {
        if !choice.is_usable(index) {
            return None;
        }
        let in_flight = f64::from(u32::try_from(choice.in_flight(index)).unwrap_or(u32::MAX));
        let in_flight = in_flight * self.loads.get(index).copied().unwrap_or(1.0) + 1.0;
        let weight = if self.settings.squared { in_flight * in_flight } else { in_flight };
        let latency = match self.settings.decay {
            Some(_) => choice.stats(index).and_then(|stats| stats.average().get()),
            None => Some(1.0),
        };
        Some((index, weight, latency))
    }

    #[inline]
    fn cheapest(&self, choice: &Choice<'_>, now: Option<Instant>, few: &Few) -> Option<usize> {
        let candidates = few.candidates.get(..few.len)?;
        let is_known = candidates.iter().all(|(_, _, latency)| latency.is_some());
        if now.is_none() && is_known {
            let cost =
                |(index, weight, latency): &Candidate| (*index, weight * latency.unwrap_or(1.0));
            return candidates.iter().map(cost).min_by(|a, b| a.1.total_cmp(&b.1)).map(|it| it.0);
        }
        self.cheapest_now(choice, now, candidates)
    }

    /// Compares those whose latency is unknown, or out of date.
    fn cheapest_now(
        &self,
        choice: &Choice<'_>,
        now: Option<Instant>,
        candidates: &[Candidate],
    ) -> Option<usize> {
        let (mut known, mut len) = ([0.0; FEW], 0);
        for latency in candidates.iter().filter_map(|candidate| candidate.2) {
            known[len] = latency;
            len += 1;
        }
        let known = &mut known[..len];
        known.sort_unstable_by(f64::total_cmp);
        // Of two the lower: one of them may be the one that is slow.
        let typical = known.get(known.len().saturating_sub(1) / 2).copied().unwrap_or(1.0);
        let latency = |(index, _, latency): &Candidate| match (now, self.settings.decay) {
            (Some(now), Some(decay)) => {
                let average = choice.stats(*index).map(|stats| (stats.average(), stats.age(now)));
                let drifted = average.and_then(|(it, age)| it.drifted(age, typical, decay));
                drifted.unwrap_or(typical)
            }
            _ => latency.unwrap_or(typical),
        };
        let priced = candidates.iter().map(|candidate| (candidate, latency(candidate)));
        let cost = |(candidate, latency): &(&Candidate, f64)| candidate.1 * latency;
        let (cheapest, latency) = priced.min_by(|a, b| cost(a).total_cmp(&cost(b)))?;
        // What it had before its drift no longer counts.
        if cheapest.2.is_some_and(|known| known > latency) {
            choice.stats(cheapest.0)?.average().go_on(latency);
        }
        Some(cheapest.0)
    }

    /// All that were drawn are unusable.
    #[cold]
    fn any(choice: &mut Choice<'_>) -> Option<usize> {
        let start = choice.random(choice.len());
        choice.first_usable(start)
    }
}

/// The mean weight in each weight.
fn loads(weights: &[usize]) -> Vec<f64> {
    let number = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let mean = weights.iter().copied().map(number).sum::<f64>() / number(weights.len().max(1));
    weights.iter().map(|&weight| mean / number(weight).max(1.0)).collect()
}

/// Candidates without an allocation.
#[derive(Default)]
struct Few {
    candidates: [Candidate; FEW],
    len: usize,
}

impl Few {
    fn of(candidates: impl Iterator<Item = Candidate>) -> Self {
        let mut few = Self::default();
        candidates.take(FEW).for_each(|candidate| few.push(candidate));
        few
    }

    #[inline]
    fn push(&mut self, candidate: Candidate) {
        if let Some(place) = self.candidates.get_mut(self.len) {
            *place = candidate;
            self.len += 1;
        }
    }

    #[inline]
    fn contains(&self, index: usize) -> bool {
        self.candidates.iter().take(self.len).any(|candidate| candidate.0 == index)
    }
}

/// More choices than these gain nothing.
const FEW: usize = 8;
/// In vain only for those that were tried for this request, or became down this instant.
const DRAWS: usize = 8;
