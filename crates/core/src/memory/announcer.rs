use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use super::store::{Entry, Store};
use crate::{
    Announcement, Announcer, InstanceId, LeaseTtl, LossReason, Registration, Renewal, Result,
};

/// Writes one entry of a [`Store`].
pub(super) struct MemoryAnnouncer {
    store: Arc<Store>,
    ttl: Duration,
    lease: u64,
    service: String,
    id: InstanceId,
}

impl MemoryAnnouncer {
    pub(super) fn new(store: Arc<Store>, ttl: Duration, registration: &Registration) -> Self {
        let lease = store.lease();
        let (service, id) =
            (registration.service().to_owned(), registration.instance().id().clone());
        Self { store, ttl, lease, service, id }
    }

    fn is_there(&self) -> bool {
        self.store.has(&self.service, &self.id)
    }
}

#[async_trait]
impl Announcer for MemoryAnnouncer {
    async fn announce(&mut self, desired: &Announcement) -> Result<Renewal> {
        self.store.call("register").await?;
        let entry = Entry {
            instance: desired.instance.clone(),
            lease: self.lease,
            expires_at: Instant::now() + self.ttl,
            corrupt: false,
        };
        self.store.edit(|state| state.insert(desired.service.clone(), entry));
        Ok(Renewal::Renewed(LeaseTtl::new(self.ttl)))
    }

    async fn renew(&mut self, _announcement: &Announcement) -> Result<Renewal> {
        self.store.call("renew").await?;
        let mut renewal = Renewal::Lost(LossReason::Gone);
        self.store.edit_quietly(|state| {
            if let Some(entry) = state.get_mut(&self.service, &self.id) {
                entry.expires_at = Instant::now() + self.ttl;
                renewal = Renewal::Renewed(LeaseTtl::new(self.ttl));
            }
        });
        Ok(renewal)
    }

    async fn lost(&mut self) -> LossReason {
        let mut changes = self.store.changes();
        // An interrupted registry tells nobody anything.
        while self.is_there() || self.store.available("renew").is_err() {
            self.store.changed(&mut changes).await;
        }
        LossReason::Gone
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.store.call("deregister").await?;
        self.store.edit(|state| {
            // An entry that somebody else has put under this id since is theirs.
            if state.get_mut(&self.service, &self.id).is_some_and(|entry| entry.lease == self.lease)
            {
                state.remove(&self.service, &self.id);
            }
        });
        Ok(())
    }
}
