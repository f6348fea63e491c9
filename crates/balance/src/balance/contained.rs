//! Panics of the user's code.
//!
//! Members that it keeps apart stay so.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tower_sd_core::Instance;

use super::{Balancer, Members, Picker, RoundRobin};

/// A picker of `balancer`; when that panics, these members are used in turn.
pub(super) fn picker(balancer: &dyn Balancer, members: &Members<'_>) -> Arc<dyn Picker> {
    let build = || balancer.picker(members);
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_panic| {
        tracing::error!(?balancer, "balancer panicked: endpoints are used in turn");
        RoundRobin::new().picker(members)
    })
}

/// A property of an instance; `None`: its computation has panicked.
pub(super) fn property<T>(
    what: &'static str,
    instance: &Instance,
    f: impl FnOnce(&Instance) -> T,
) -> Option<T> {
    let property = catch_unwind(AssertUnwindSafe(|| f(instance)));
    if property.is_err() {
        tracing::error!(id = %instance.id(), what, "property of an instance panicked: it has none");
    }
    property.ok()
}
