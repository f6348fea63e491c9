use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project::pin_project;
use tower_layer::Layer;
use tower_sd_core::{BoxError, Instance};
use tower_service::Service;

use crate::{
    endpointer::{Factory, InFlight},
    retry::Protocol,
};

/// Layers around each service of a [`Factory`].
///
/// ```
/// use std::time::Duration;
/// use tower::{service_fn, timeout::TimeoutLayer};
/// use tower_sd::endpoint::{Endpointer, factory_fn, FactoryExt};
/// use tower_sd::{BoxError, FixedInstancer, Instance};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let factory = factory_fn(|instance: Instance| async move {
///     Ok(service_fn(move |n: u32| std::future::ready(Ok::<_, BoxError>(n))))
/// });
/// let factory = factory.layer(TimeoutLayer::new(Duration::from_secs(1)));
/// let endpointer = Endpointer::new(&FixedInstancer::new([Instance::new("a", 1)]), factory);
/// # drop(endpointer);
/// # }
/// ```
pub trait FactoryExt: Factory + Sized {
    /// Wraps each service by `layer`.
    fn layer<L>(self, layer: L) -> impl Factory<Service = L::Service>
    where
        L: Layer<Self::Service, Service: Clone + Send + Sync + 'static> + Send + Sync + 'static,
    {
        Mapped { factory: self, map: move |_: &Instance, service| layer.layer(service) }
    }

    /// Wraps each service by the layer that `layer` returns for its instance.
    fn layer_with<F, L>(self, layer: F) -> impl Factory<Service = L::Service>
    where
        F: Fn(&Instance) -> L + Send + Sync + 'static,
        L: Layer<Self::Service, Service: Clone + Send + Sync + 'static>,
    {
        let map = move |instance: &Instance, service| layer(instance).layer(service);
        Mapped { factory: self, map }
    }

    /// Has `protocol` decide the outcome of each response and error, for the endpoint's statistics.
    ///
    /// For services that do not [take the guard](InFlight::take) themselves; those of the HTTP and
    /// gRPC crates do. The guard is released with the response.
    fn protocol<P>(self, protocol: P) -> impl Factory<Service = Classified<Self::Service, P>>
    where
        P: Send + Sync + 'static,
    {
        let protocol = Arc::new(protocol);
        let map = move |_: &Instance, service| {
            InFlight::enable();
            Classified { service, protocol: Arc::clone(&protocol) }
        };
        Mapped { factory: self, map }
    }
}

impl<F: Factory> FactoryExt for F {}

struct Mapped<F, M> {
    factory: F,
    map: M,
}

impl<F, M, S> Factory for Mapped<F, M>
where
    F: Factory,
    M: Fn(&Instance, F::Service) -> S + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
{
    type Service = S;

    async fn make(&self, instance: Instance) -> Result<S, BoxError> {
        let service = self.factory.make(instance.clone()).await?;
        Ok((self.map)(&instance, service))
    }
}

/// A service whose outcomes a [`Protocol`] decides, see [`FactoryExt::protocol`].
pub struct Classified<S, P> {
    service: S,
    protocol: Arc<P>,
}

impl<S, P, Req> Service<Req> for Classified<S, P>
where
    S: Service<Req, Error: Into<BoxError>>,
    P: Protocol<Req, S::Response>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ClassifiedFuture<S::Future, P, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (guard, protocol) = (InFlight::take(), Arc::clone(&self.protocol));
        let future = self.service.call(request);
        ClassifiedFuture { future, guard, protocol, request: std::marker::PhantomData }
    }
}

/// The future response of a [`Classified`].
#[pin_project]
pub struct ClassifiedFuture<F, P, Req> {
    #[pin]
    future: F,
    guard: Option<InFlight>,
    protocol: Arc<P>,
    request: std::marker::PhantomData<fn(Req)>,
}

impl<F, P, Req, T, E> Future for ClassifiedFuture<F, P, Req>
where
    F: Future<Output = Result<T, E>>,
    P: Protocol<Req, T>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.future.poll(cx)).map_err(Into::into);
        if let Some(mut guard) = this.guard.take() {
            if result.as_ref().is_ok_and(|response| this.protocol.is_rejection(response)) {
                guard.rejected();
            }
            guard.done(this.protocol.outcome(result.as_ref()));
        }
        Poll::Ready(result)
    }
}

impl<S: Clone, P> Clone for Classified<S, P> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), protocol: Arc::clone(&self.protocol) }
    }
}

impl<S: fmt::Debug, P> fmt::Debug for Classified<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classified").field("service", &self.service).finish_non_exhaustive()
    }
}

impl<F, P, Req> fmt::Debug for ClassifiedFuture<F, P, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClassifiedFuture").finish_non_exhaustive()
    }
}
