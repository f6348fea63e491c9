#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use tower_sd_core::Instance;

use super::{
    Balancer, Choice, Members, Picker,
    part::{Part, Property, picker},
};
use crate::RequestScope;

/// The members with the label of the request: a version, a tag, a shard.
///
/// The label is that of the request's [`RequestScope`], which a [`ScopeLayer`](crate::ScopeLayer)
/// sets. Among the members that have it another balancer chooses. [`Fallback`] decides about
/// requests whose label no usable member has, and about those without a label. While a member with
/// the label is busy or connects, requests wait for it, at most 250 ms. Envoy's subset load
/// balancer has the same policies. For a share of all requests, as for a canary, see
/// [`Split`](crate::Split).
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_sd::balance::{BalanceLayer, Fallback, LeastLoaded, Select};
/// use tower_sd::endpoint::{RequestScope, ScopeLayer};
///
/// // Requests that name a version go to it, all others to v1.
/// let pinned = |(_, version): &(u64, Option<&str>)| match version {
///     Some(version) => RequestScope::new().with_label(*version),
///     None => RequestScope::new(),
/// };
/// let by_version = Select::by_metadata("version", LeastLoaded::new());
/// let client = ServiceBuilder::new()
///     .layer(ScopeLayer::new(pinned))
///     .layer(BalanceLayer::new(by_version.fallback(Fallback::Label("v1".to_owned()))));
/// # let _ = client;
/// ```
#[derive(Clone, Debug)]
pub struct Select {
    labels: Property<Vec<String>>,
    inner: Arc<dyn Balancer>,
    fallback: Fallback,
}

/// Where a [`Select`] sends requests whose label no usable member has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fallback {
    /// To any member.
    #[default]
    Any,
    /// To those with this label, as requests without a label; then to none.
    Label(String),
    /// To none: [`NoInstances`](crate::NoInstances), after the bounded wait.
    ///
    /// Requests without a label go to any member.
    Fail,
}

impl Select {
    /// Selects by the labels that `labels` returns for an instance.
    pub fn by(
        labels: impl Fn(&Instance) -> Vec<String> + Send + Sync + 'static,
        inner: impl Balancer,
    ) -> Self {
        let labels = Property::new("labels", labels);
        Self { labels, inner: Arc::new(inner), fallback: Fallback::default() }
    }

    /// Selects by the value of one entry of the metadata, such as `version`.
    pub fn by_metadata(key: impl Into<String>, inner: impl Balancer) -> Self {
        let key = key.into();
        Self::by(
            move |instance| instance.metadata().get(&key).cloned().into_iter().collect(),
            inner,
        )
    }

    /// Selects by tag.
    pub fn by_tag(inner: impl Balancer) -> Self {
        Self::by(|instance| instance.tags().to_vec(), inner)
    }

    /// A panic is a user's bug, which must not send requests to members of other labels.
    fn labels_of(&self, instance: &Instance) -> Vec<String> {
        let mut labels = self.labels.of(instance).unwrap_or_default();
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    /// Sets the fallback. Defaults to any member.
    #[must_use]
    pub fn fallback(self, fallback: Fallback) -> Self {
        Self { fallback, ..self }
    }
}

impl Balancer for Select {
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker> {
        let groups = Part::by(members, |instance| self.labels_of(instance), &*self.inner);
        let all = picker(&*self.inner, members);
        let groups = groups.into_iter().collect();
        Arc::new(Groups { groups, all, fallback: self.fallback.clone() })
    }

    fn inner(&self) -> Option<&dyn Balancer> {
        Some(&*self.inner)
    }
}

struct Groups {
    groups: HashMap<String, Part>,
    all: Arc<dyn Picker>,
    fallback: Fallback,
}

impl Picker for Groups {
    #[inline]
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        let label = choice.scope().and_then(RequestScope::label);
        let is_labelled = label.is_some();
        let group = label.and_then(|label| self.groups.get(label));
        group.and_then(|group| group.pick(choice)).or_else(|| match &self.fallback {
            _ if is_labelled && choice.keeps_label(group.is_some()) => None,
            Fallback::Any => self.all.pick(choice),
            Fallback::Label(label) => self.groups.get(label)?.pick(choice),
            Fallback::Fail if is_labelled => None,
            Fallback::Fail => self.all.pick(choice),
        })
    }
}
