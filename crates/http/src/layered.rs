use tower_layer::Layer;
use tower_sd_balance::{BoxError, Factory, Instance};

use crate::{HttpEndpoint, HttpFactory};

/// An [`HttpFactory`] with a layer around each of its endpoints; made by [`HttpFactory::layer`].
#[derive(Clone, Debug)]
pub struct Layered<B, L> {
    factory: HttpFactory<B>,
    layer: L,
}

impl<B, L> Layered<B, L> {
    pub(crate) fn new(factory: HttpFactory<B>, layer: L) -> Self {
        Self { factory, layer }
    }
}

impl<B, L> Factory for Layered<B, L>
where
    B: Send + 'static,
    L: Layer<HttpEndpoint<B>> + Send + Sync + 'static,
    L::Service: Clone + Send + Sync + 'static,
{
    type Service = L::Service;

    async fn make(&self, instance: Instance) -> Result<L::Service, BoxError> {
        Ok(self.layer.layer(self.factory.endpoint(&instance)?))
    }
}
