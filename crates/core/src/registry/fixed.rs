use std::future;

use async_trait::async_trait;

use super::Backend;
use crate::{Instance, ReadRequest, ReadResult, Result, Source};

/// Instances that are known, of every service.
pub(super) struct FixedBackend(pub(super) Vec<Instance>);

struct FixedSource(Vec<Instance>);

impl FixedBackend {
    pub(super) const NAME: &str = "static";
}

impl Backend for FixedBackend {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn source(&self, _service: &str) -> Result<Box<dyn Source<Item = Instance>>> {
        Ok(Box::new(FixedSource(self.0.clone())))
    }
}

#[async_trait]
impl Source for FixedSource {
    type Item = Instance;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        if request.waits() {
            future::pending::<()>().await;
        }
        Ok(ReadResult::set(self.0.iter().cloned().map(Ok).collect()))
    }
}
