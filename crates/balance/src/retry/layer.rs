use std::sync::Arc;

use tower_layer::Layer;

use super::{CloneRequest, Retry, RetryPolicy};

/// Puts a [`Retry`] above a service.
#[derive(Clone, Debug)]
pub struct RetryLayer<R = CloneRequest> {
    policy: Arc<RetryPolicy<R>>,
}

impl<R> RetryLayer<R> {
    /// Retries by `policy`.
    ///
    /// The services of one layer share its budget.
    ///
    /// # Panics
    ///
    /// When the settings contradict each other, see [`RetryPolicy::check`].
    pub fn new(policy: RetryPolicy<R>) -> Self {
        if let Err(error) = policy.check() {
            panic!("{error}");
        }
        Self { policy: Arc::new(policy.with_own_budget()) }
    }
}

impl<R, S> Layer<S> for RetryLayer<R> {
    type Service = Retry<S, R>;

    fn layer(&self, inner: S) -> Retry<S, R> {
        Retry::new(inner, Arc::clone(&self.policy))
    }
}
