use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use super::store::{Entry, State, Store};
use crate::{
    Announcement, Announcer, Error, ErrorKind, InstanceId, LeaseTtl, LossReason, Registration,
    Renewal, Result,
};

/// Writes one entry of a [`Store`].
pub(super) struct MemoryAnnouncer {
    store: Arc<Store>,
    ttl: Duration,
    service: String,
    id: InstanceId,
    /// Of the announcement that was written; empty before.
    incarnation: String,
    /// The loss that the loop has learned of.
    reported: Option<LossReason>,
}

impl MemoryAnnouncer {
    pub(super) fn new(store: Arc<Store>, registration: &Registration) -> Self {
        let ttl = registration.lease_ttl().min(MAX_TTL);
        let (service, id) =
            (registration.service().to_owned(), registration.instance().id().clone());
        Self { store, ttl, service, id, incarnation: String::new(), reported: None }
    }

    /// Compares the entry with the registration: `None` if it is this one's.
    fn loss(&self, state: &mut State) -> Option<LossReason> {
        match state.get_mut(&self.service, &self.id) {
            Some(entry) if entry.incarnation == self.incarnation => None,
            Some(Entry { instance, incarnation, .. }) => {
                let by = format!("{instance}, incarnation {incarnation}");
                Some(LossReason::TakenOver { by })
            }
            None => Some(LossReason::Gone),
        }
    }

    fn answer(&mut self, loss: Option<LossReason>) -> Renewal {
        self.reported.clone_from(&loss);
        loss.map_or_else(|| Renewal::Renewed(LeaseTtl::new(self.ttl)), Renewal::Lost)
    }
}

#[async_trait]
impl Announcer for MemoryAnnouncer {
    async fn announce(&mut self, announcement: &Announcement) -> Result<Renewal> {
        self.store.call("register").await.map_err(Error::without_effect)?;
        if announcement.instance.metadata().values().any(|value| value.len() > MAX_VALUE) {
            return Err(Error::new(ErrorKind::Config, "memory", "register").with_message(format!(
                "a value of the metadata is longer than {MAX_VALUE} bytes"
            )));
        }
        announcement.incarnation().clone_into(&mut self.incarnation);
        let mut loss = None;
        self.store.edit(|state| {
            loss = self.loss(state).filter(|loss| *loss != LossReason::Gone);
            if announcement.takes_over || loss.is_none() {
                if let Some(LossReason::TakenOver { by }) = loss.take() {
                    let (service, instance) = (&self.service, &self.id);
                    tracing::warn!(
                        backend = "memory",
                        service,
                        %instance,
                        from = by,
                        "took over the entry of another registration"
                    );
                }
                let entry = Entry {
                    instance: announcement.instance.clone(),
                    incarnation: self.incarnation.clone(),
                    expires_at: Instant::now() + self.ttl,
                    corrupt: false,
                };
                state.insert(announcement.service.clone(), entry);
            }
        });
        Ok(self.answer(loss))
    }

    async fn renew(&mut self, _announcement: &Announcement) -> Result<Renewal> {
        self.store.call("renew").await?;
        let mut state = self.store.lock();
        let loss = self.loss(&mut state);
        if let (None, Some(entry)) = (&loss, state.get_mut(&self.service, &self.id)) {
            entry.expires_at = Instant::now() + self.ttl;
        }
        drop(state);
        Ok(self.answer(loss))
    }

    async fn lost(&mut self) -> LossReason {
        let mut changes = self.store.changes();
        loop {
            let loss = self.loss(&mut self.store.lock());
            // An interrupted registry reports nothing.
            if self.store.available("renew").is_ok() && loss != self.reported {
                self.reported.clone_from(&loss);
                if let Some(reason) = loss {
                    return reason;
                }
            }
            self.store.changed(&mut changes).await;
        }
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.store.call("deregister").await?;
        self.store.edit(|state| {
            if self.loss(state).is_none() {
                state.remove(&self.service, &self.id);
            }
        });
        Ok(())
    }
}

/// As every registry has a limit: about etcd's.
const MAX_VALUE: usize = 1_000_000;
/// An `Instant` cannot be as far away as a `Duration` is long.
const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 3600);
