use std::{
    cmp::Ordering,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use crate::{Instance, InstanceId};

/// The filters of a publisher: all must accept.
pub(super) type Wants = Vec<Arc<dyn Fn(&Instance) -> bool + Send + Sync>>;

/// The entries of the registry: sorted by id, each id and each address once, unchanged entries with
/// the `Arc` they had.
///
/// Of several with one id or one address the first in this order is kept: those that accept
/// requests and pass the filter, the youngest, and then by content. No order of an answer, and no
/// entry of a dead process, hides a live instance.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) wants: Wants,
    /// Sorted by id, each id once; addresses may still repeat.
    entries: Arc<[Instance]>,
    /// How many entries have an address of that hash. Kept up by difference: the common read
    /// changes one entry of many.
    addresses: HashMap<u64, u32>,
    n_shared: usize,
    hasher: RandomState,
    /// The last counts that were logged, so that a lasting fault is logged once.
    pub(super) n_malformed: usize,
    pub(super) n_refused: usize,
    pub(super) n_duplicates: usize,
}

impl Listing {
    /// The last entry with this id.
    pub(super) fn get(&self, id: &InstanceId) -> Option<&Instance> {
        let place = self.entries.binary_search_by(|entry| entry.id().cmp(id)).ok()?;
        self.entries.get(place)
    }

    /// The instances, and how many entries repeat one; `ignores` takes those of which the read
    /// ignores other values than the last one did.
    pub(super) fn read(
        &mut self,
        mut entries: Vec<Instance>,
        ignores: impl Fn(&Instance),
    ) -> (Arc<[Instance]>, usize) {
        let n_read = entries.len();
        if !self.is_in_order(&entries) {
            entries.sort_by(|a, b| a.id().cmp(b.id()).then_with(|| self.preference(a, b)));
            entries.dedup_by(|later, kept| later.id() == kept.id());
        }
        self.keep_known(&mut entries, ignores);
        self.entries = entries.into();
        let instances = self.instances();
        let n_duplicates = n_read - instances.len();
        (instances, n_duplicates)
    }

    /// The last read, each address once.
    pub(super) fn instances(&self) -> Arc<[Instance]> {
        match self.n_shared {
            0 => Arc::clone(&self.entries),
            _ => self.one_per_address(),
        }
    }

    /// Whether the very entry stood at that place before: it has been read then. Of 10 000 entries
    /// a common read changes one, and comparing two pointers touches neither.
    pub(super) fn is_known(&self, place: usize, entry: &Instance) -> bool {
        self.entries.get(place).is_some_and(|known| known.ptr_eq(entry))
    }

    /// Whether the entries are sorted by id, each id once: known neighbours are.
    fn is_in_order(&self, entries: &[Instance]) -> bool {
        entries.windows(2).enumerate().all(|(place, pair)| {
            let known = |i: usize| self.is_known(place + i, &pair[i]);
            (known(0) && known(1)) || pair[0].id() < pair[1].id()
        })
    }

    /// Walks old and new side by side: equal ones keep the old `Arc`, the others change the count
    /// of addresses.
    fn keep_known(&mut self, entries: &mut [Instance], ignores: impl Fn(&Instance)) {
        let known = std::mem::take(&mut self.entries);
        let mut old = known.iter().peekable();
        for entry in entries {
            while let Some(gone) = old.next_if(|old| !old.ptr_eq(entry) && old.id() < entry.id()) {
                self.uncount(gone);
            }
            match old.next_if(|old| old.ptr_eq(entry) || old.id() == entry.id()) {
                Some(same) if same.ptr_eq(entry) => {}
                Some(same) if same == entry => *entry = same.clone(),
                before => {
                    before.into_iter().for_each(|changed| self.uncount(changed));
                    self.count(entry);
                    let ignored = before.map_or("", Instance::ignored);
                    if !["", ignored].contains(&entry.ignored()) {
                        ignores(entry);
                    }
                }
            }
        }
        for gone in old {
            self.uncount(gone);
        }
    }

    fn one_per_address(&self) -> Arc<[Instance]> {
        let mut kept: HashMap<_, &Instance> = HashMap::with_capacity(self.entries.len());
        for entry in &*self.entries {
            let kept = kept.entry(address(entry)).or_insert(entry);
            if self.preference(entry, kept) == Ordering::Less {
                *kept = entry;
            }
        }
        let is_kept = |entry: &&Instance| kept[&address(entry)].ptr_eq(entry);
        self.entries.iter().filter(is_kept).cloned().collect()
    }

    /// Which of two entries with one id or one address is kept: the lesser.
    fn preference(&self, a: &Instance, b: &Instance) -> Ordering {
        if a.ptr_eq(b) {
            return Ordering::Equal;
        }
        let refused = |entry: &Instance| {
            !(entry.accepts_requests() && self.wants.iter().all(|wants| wants(entry)))
        };
        refused(a)
            .cmp(&refused(b))
            .then_with(|| b.started_at_ms().cmp(&a.started_at_ms()))
            .then_with(|| a.content_order(b))
    }

    fn count(&mut self, entry: &Instance) {
        let n = self.addresses.entry(self.hasher.hash_one(address(entry))).or_default();
        *n += 1;
        self.n_shared += usize::from(*n == 2);
    }

    fn uncount(&mut self, entry: &Instance) {
        let hash = self.hasher.hash_one(address(entry));
        let Some(n) = self.addresses.get_mut(&hash) else {
            return;
        };
        *n -= 1;
        match *n {
            0 => drop(self.addresses.remove(&hash)),
            1 => self.n_shared -= 1,
            _ => {}
        }
    }
}

fn address(entry: &Instance) -> (&str, u16, Option<&str>) {
    (entry.host(), entry.port(), entry.scheme())
}
