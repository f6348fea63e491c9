//! Parts of the members, by a property that the user computes.
//!
//! Panics are a user's bug, which must not end the updates: members are kept apart nevertheless.

use std::{collections::BTreeMap, fmt, sync::Arc};

use tower_sd_core::Instance;

use super::{Balancer, Choice, Members, Picker, RoundRobin};
use crate::endpointer::contain;

/// A picker of `balancer`; when that panics, these members are used in turn.
pub(super) fn picker(balancer: &dyn Balancer, members: &Members<'_>) -> Arc<dyn Picker> {
    let what = format_args!("{balancer:?}: its endpoints are used in turn");
    contain(what, || balancer.picker(members)).unwrap_or_else(|| RoundRobin::new().picker(members))
}

/// A property of an instance.
#[derive(Clone)]
pub(super) struct Property<T> {
    what: &'static str,
    of: Arc<dyn Fn(&Instance) -> T + Send + Sync>,
}

/// Some of the members, with a picker of their own.
pub(super) struct Part {
    nth: usize,
    indexes: Vec<usize>,
    picker: Arc<dyn Picker>,
}

/// Parts with their shares of the requests, drawn for each request.
///
/// Without a usable member in its part, a request goes to the first part that has one.
pub(super) struct Levels(pub(super) Vec<(usize, Part)>);

impl<T> Property<T> {
    pub(super) fn new(
        what: &'static str,
        of: impl Fn(&Instance) -> T + Send + Sync + 'static,
    ) -> Self {
        Self { what, of: Arc::new(of) }
    }

    /// `None`: its computation has panicked.
    pub(super) fn of(&self, instance: &Instance) -> Option<T> {
        let what = format_args!("{}: instance {} has none", self.what, instance.id());
        contain(what, || (self.of)(instance))
    }
}

impl Part {
    /// The members by a property, of which one may have several values: a part for each value.
    pub(super) fn by<K: Ord, I: IntoIterator<Item = K>>(
        members: &Members<'_>,
        property: impl Fn(&Instance) -> I,
        inner: &dyn Balancer,
    ) -> BTreeMap<K, Self> {
        let mut indexes = BTreeMap::<K, Vec<usize>>::new();
        for (index, instance) in members.iter().enumerate() {
            for value in property(&instance) {
                indexes.entry(value).or_default().push(index);
            }
        }
        let part = |((value, indexes), nth): ((K, Vec<usize>), usize)| {
            let is_of = |instance: &Instance| property(instance).into_iter().any(|it| it == value);
            let picker = members.only(&indexes, is_of, |part| picker(inner, part));
            (value, Self { nth, indexes, picker })
        };
        indexes.into_iter().zip(0..).map(part).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.indexes.len()
    }

    #[inline]
    pub(super) fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        choice.only(self.nth, &self.indexes, &*self.picker)
    }
}

impl Picker for Levels {
    #[inline]
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        if self.0.first().is_some_and(|(load, _)| *load < WHOLE) {
            let mut drawn = choice.random(WHOLE);
            for (load, level) in &self.0 {
                if drawn < *load {
                    if let Some(picked) = level.pick(choice) {
                        return Some(picked);
                    }
                    break;
                }
                drawn -= load;
            }
        }
        self.0.iter().find_map(|(_, level)| level.pick(choice))
    }
}

impl<T> fmt::Debug for Property<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

/// All requests; fine enough for one usable member of 10 000.
pub(super) const WHOLE: usize = 1_000_000;
