use std::future::Future;

use tower_sd_core::{BoxError, Instance};

/// Creates the service of one instance.
///
/// # Contract
///
/// - Called off the request path, for several instances concurrently, again after a failure, and
///   never twice concurrently for one instance. A changed payload (weight, metadata, status) does
///   not call it again, a changed address does.
/// - It may connect, but better it does not: a service that connects in `poll_ready` shows the
///   balancer that its peer is dead before a request is spent on it, and the balancer picks
///   another.
/// - Clones of the service share their connections: the balancer clones one for each request.
///
/// A closure from an [`Instance`] to a future of a service is one; see
/// [`Endpointer::with`](crate::Endpointer::with) and [`factory_fn`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` makes no endpoints",
    note = "a closure from an `Instance` to a future of a service is a factory, see `Endpointer::with`"
)]
#[doc(alias = "MakeService")]
pub trait Factory: Send + Sync + 'static {
    /// The service. `tower::Service` is required only where it is called, so that other clients can
    /// be balanced too.
    type Service: Clone + Send + Sync + 'static;

    /// Makes the service for `instance`.
    ///
    /// # Errors
    ///
    /// Whatever went wrong; it is tried again with growing pauses for as long as the instance is
    /// listed.
    fn make(
        &self,
        instance: Instance,
    ) -> impl Future<Output = Result<Self::Service, BoxError>> + Send;
}

/// Of async closures.
impl<F, Fut, S> Factory for F
where
    F: Fn(Instance) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<S, BoxError>> + Send,
    S: Clone + Send + Sync + 'static,
{
    type Service = S;

    fn make(&self, instance: Instance) -> impl Future<Output = Result<S, BoxError>> + Send {
        self(instance)
    }
}

/// The same closure as a [`Factory`]: it need not name the type of its argument.
pub fn factory_fn<F, Fut, S>(make: F) -> F
where
    F: Fn(Instance) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<S, BoxError>> + Send,
    S: Clone + Send + Sync + 'static,
{
    make
}
