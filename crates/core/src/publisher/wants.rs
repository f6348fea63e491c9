use std::sync::Arc;

use crate::Instance;

/// The filter of a publisher.
#[derive(Clone, Default)]
pub(super) struct Wants(Option<Arc<Filter>>);

type Filter = dyn Fn(&Instance) -> bool + Send + Sync;

impl Wants {
    /// Of this one and another filter.
    pub(super) fn and(self, wants: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(move |instance: &Instance| self.of(instance) && wants(instance))))
    }

    pub(super) fn of(&self, instance: &Instance) -> bool {
        self.0.as_ref().is_none_or(|wants| wants(instance))
    }
}
