mod announcer;
mod entry;

use tower_sd_core::{
    AnnounceConfig, Registrar, Registration, RegistrationHandle, Result, TaskGroup, announce,
    async_trait,
};

use self::announcer::EtcdAnnouncer;
use crate::{BACKEND, EtcdClient};

/// Announces instances under leases of their own.
///
/// # Drop
///
/// Registrations outlive it: each lasts as long as its handle.
#[derive(Clone, Debug)]
pub struct EtcdRegistrar {
    client: EtcdClient,
    config: AnnounceConfig,
    tasks: TaskGroup,
}

impl EtcdRegistrar {
    /// A registrar with the default settings.
    #[must_use]
    pub fn new(client: &EtcdClient) -> Self {
        Self::with_config(client, AnnounceConfig::new(BACKEND))
    }

    /// A registrar with settings of the announcing loop.
    #[must_use]
    pub fn with_config(client: &EtcdClient, config: AnnounceConfig) -> Self {
        Self { client: client.clone(), config, tasks: TaskGroup::new() }
    }

    /// Withdraws all its registrations, and waits for that.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, they are still withdrawn; only the waiting is lost.
    pub async fn close(&self) {
        self.tasks.close().await;
    }
}

#[async_trait]
impl Registrar for EtcdRegistrar {
    async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        let id = registration.instance().id();
        let announcer = EtcdAnnouncer::new(&self.client, registration.service(), id.as_str())?;
        announce(announcer, registration, self.config.clone(), &self.tasks).await
    }

    async fn close(&self) {
        Self::close(self).await;
    }
}
