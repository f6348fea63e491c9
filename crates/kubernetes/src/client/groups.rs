//! Slices by service.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use tower_sd_core::Result;

use super::object::EndpointSlice;

/// The slices of a service by name; the error of one that is malformed.
pub(crate) type Known = BTreeMap<String, Result<Arc<EndpointSlice>>>;

/// The slices of a service, and the list that they go back to.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) slices: Arc<Known>,
    /// One of each list. Only the events of an unbroken watch leave it as it is.
    pub(super) list: Arc<()>,
}

impl View {
    /// Whether nothing has changed since `last`.
    pub(crate) fn is(&self, last: &Self) -> bool {
        Arc::ptr_eq(&self.slices, &last.slices)
    }

    /// Whether events alone have led from `last` to this.
    pub(crate) fn follows(&self, last: &Self) -> bool {
        Arc::ptr_eq(&self.list, &last.list)
    }
}

/// Slices in groups, and which of these have changed.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<String, Arc<Known>>,
    /// The group of each slice.
    of_slice: HashMap<String, String>,
    changed: BTreeSet<String>,
}

impl Groups {
    /// Adds a slice to a group, and takes it out of any other.
    pub(super) fn insert(&mut self, group: &str, name: &str, slice: Result<Arc<EndpointSlice>>) {
        if self.of_slice.get(name).is_none_or(|known| known != group) {
            self.remove(name);
            self.of_slice.insert(name.to_owned(), group.to_owned());
        }
        let known = self.groups.entry(group.to_owned()).or_default();
        Arc::make_mut(known).insert(name.to_owned(), slice);
        self.changed.insert(group.to_owned());
    }

    /// Removes a slice; `true` if there was one.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let Some(group) = self.of_slice.remove(name) else { return false };
        if let Some(known) = self.groups.get_mut(&group) {
            Arc::make_mut(known).remove(name);
        }
        self.changed.insert(group);
        true
    }

    /// Notes that these slices replace those: every group of either may have changed.
    pub(super) fn note_changed(&mut self, replaced: &Self) {
        self.changed.extend(replaced.groups.keys().chain(&replaced.changed).cloned());
    }

    /// The slices of a group.
    pub(super) fn of(&self, group: &str) -> Arc<Known> {
        self.groups.get(group).cloned().unwrap_or_default()
    }

    /// The groups that have changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<String> {
        mem::take(&mut self.changed)
    }
}
