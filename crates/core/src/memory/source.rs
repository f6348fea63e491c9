use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::store::{Entry, Store};
use crate::{Error, ErrorKind, Instance, ReadRequest, ReadResult, Result, Source};

/// Reads one service of a [`Store`].
pub(super) struct MemorySource {
    store: Arc<Store>,
    service: String,
    changes: watch::Receiver<()>,
}

impl MemorySource {
    pub(super) fn new(store: Arc<Store>, service: String) -> Self {
        Self { changes: store.changes(), store, service }
    }
}

#[async_trait]
impl Source for MemorySource {
    type Item = Instance;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        if request.waits() {
            self.store.available("follow")?;
            self.store.changed(&mut self.changes).await;
        }
        self.store.call("follow").await?;
        self.changes.mark_unchanged();
        let state = self.store.lock();
        let entries = state.entries(&self.service).filter(|_| !state.empty);
        Ok(ReadResult::set(entries.map(decode).collect()))
    }
}

fn decode(entry: &Entry) -> Result<Instance> {
    match entry.corrupt {
        true => Err(Error::new(ErrorKind::Protocol, "memory", "follow")
            .with_instance(entry.instance.id().clone())
            .with_message("the entry is corrupt")),
        false => Ok(entry.instance.clone()),
    }
}
