use std::sync::Arc;

use super::Endpoint;

/// A vector of endpoints that shares what has not changed with its clones.
///
/// Two levels, copied on write: changing one of 10 000 copies a chunk of pointers and the list of
/// chunks. The order is unspecified: the last one takes the place of one that is removed. Slices,
/// because each hop counts for every request.
#[derive(Clone)]
pub(crate) struct Set<S> {
    /// All are full but the last, and none is empty.
    chunks: Arc<[Chunk<S>]>,
    len: usize,
    /// Of the weights, and of their squares.
    sums: (i128, i128),
}

type Chunk<S> = Arc<[Arc<Endpoint<S>>]>;

impl<S> Set<S> {
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&Arc<Endpoint<S>>> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint<S>>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Known without a walk: that is when n·Σw² = (Σw)².
    pub(crate) fn weigh_the_same(&self) -> bool {
        let (n, (sum, squares)) = (i128::try_from(self.len).unwrap_or(i128::MAX), self.sums);
        n * squares == sum * sum
    }

    fn weigh(&mut self, weight: u64, sign: i128) {
        let weight = i128::from(weight);
        self.sums.0 += sign * weight;
        self.sums.1 += sign * weight * weight;
    }

    /// Makes it another set with the same members: the payload of one has changed.
    ///
    /// Its weight was `before`, and is `now`.
    pub(crate) fn touch(&mut self, before: u64, now: u64) {
        self.weigh(before, -1);
        self.weigh(now, 1);
        self.chunks = self.chunks.iter().cloned().collect();
    }

    /// Whether nothing has changed between the two.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
    }

    /// Its index is the old length.
    pub(crate) fn push(&mut self, endpoint: Arc<Endpoint<S>>) {
        self.weigh(endpoint.weight(), 1);
        let mut chunks = self.chunks.to_vec();
        match chunks.last_mut() {
            Some(last) if last.len() < CHUNK => *last = with(last, |last| last.push(endpoint)),
            _ => chunks.push(Arc::new([endpoint])),
        }
        self.chunks = chunks.into();
        self.len += 1;
    }

    /// Removes one; the one that was last and now stands in its place, if there is one.
    pub(crate) fn swap_remove(&mut self, index: usize) -> Option<&Arc<Endpoint<S>>> {
        self.weigh(self.get(index)?.weight(), -1);
        let moved = Arc::clone(self.get(self.len.checked_sub(1)?)?);
        let mut chunks = self.chunks.to_vec();
        let last = chunks.last_mut()?;
        match last.len() {
            1 => drop(chunks.pop()),
            _ => *last = with(last, |last| drop(last.pop())),
        }
        self.len -= 1;
        if index < self.len {
            let chunk = chunks.get_mut(index / CHUNK)?;
            *chunk = with(chunk, |chunk| chunk[index % CHUNK] = moved);
        }
        self.chunks = chunks.into();
        self.get(index)
    }
}

fn with<T: Clone>(slice: &[T], change: impl FnOnce(&mut Vec<T>)) -> Arc<[T]> {
    let mut copy = slice.to_vec();
    change(&mut copy);
    copy.into()
}

impl<S> Default for Set<S> {
    fn default() -> Self {
        Self { chunks: Arc::new([]), len: 0, sums: (0, 0) }
    }
}

/// Above it a weight makes no sense, and sums could overflow.
pub(crate) const MAX_WEIGHT: u32 = 1_000_000;
/// Near the square root of 10 000, where copying a chunk and copying the list of chunks cost the
/// same.
const CHUNK: usize = 128;

#[cfg(test)]
mod tests {
    use tower_sd_core::Instance;

    use super::*;
    use crate::EndpointStats;

    fn endpoint(port: u16) -> Arc<Endpoint<()>> {
        let instance = Instance::new("h", port);
        let stats = EndpointStats::new(instance.id().clone(), false, Arc::default());
        Arc::new(Endpoint::new((), stats.into(), instance))
    }

    fn ports<S>(set: &Set<S>) -> Vec<u16> {
        set.iter().map(|endpoint| endpoint.instance().port()).collect()
    }

    #[test]
    fn it_behaves_like_a_vector_under_random_changes() {
        let mut rng = fastrand::Rng::with_seed(3);
        let (mut set, mut model) = (Set::default(), Vec::new());
        for port in 0..3_000 {
            if rng.u32(..3) == 0 && !model.is_empty() {
                let index = rng.usize(..model.len());
                model.swap_remove(index);
                let moved = set.swap_remove(index).map(|endpoint| endpoint.instance().port());
                assert_eq!(moved, model.get(index).copied());
            } else {
                model.push(port);
                set.push(endpoint(port));
            }
            assert_eq!(set.len(), model.len());
        }
        assert_eq!(ports(&set), model);
        assert!(
            (0..model.len()).all(|i| set.get(i).expect("in range").instance().port() == model[i])
        );
        assert!(set.get(model.len()).is_none());
    }

    #[test]
    fn clone_keeps_what_it_had_and_shares_what_has_not_changed() {
        let mut set = Set::default();
        (0..300).for_each(|port| set.push(endpoint(port)));
        let before = set.clone();
        set.swap_remove(10);
        assert_eq!(before.len(), 300);
        assert_eq!(ports(&before), (0..300).collect::<Vec<_>>());
        assert!(Arc::ptr_eq(&set.chunks[1], &before.chunks[1]));
        assert!(!Arc::ptr_eq(&set.chunks[0], &before.chunks[0]));
    }
}
