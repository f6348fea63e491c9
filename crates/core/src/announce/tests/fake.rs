use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, time::sleep};

use crate::{
    AnnounceConfig, Announcement, Announcer, Error, ErrorKind, Health, LeaseTtl, LossReason,
    Registration, RegistrationHandle, Renewal, Result, Tasks, announce,
};

/// A registry of one entry, whose answers the test decides.
#[derive(Clone, Default)]
pub(super) struct Fake(pub(super) Arc<Shared>);

#[derive(Default)]
pub(super) struct Shared {
    pub(super) down: AtomicBool,
    pub(super) denied: AtomicBool,
    pub(super) hangs: AtomicBool,
    pub(super) forgotten: AtomicBool,
    pub(super) shows_health: AtomicBool,
    pub(super) there: AtomicBool,
    pub(super) critical: AtomicBool,
    pub(super) weight: AtomicUsize,
    pub(super) lost: Notify,
    pub(super) n_announced: AtomicUsize,
    pub(super) n_renewed: AtomicUsize,
    pub(super) n_withdrawn: AtomicUsize,
    /// Calls that are being answered right now.
    pub(super) n_running: AtomicUsize,
}

impl Fake {
    pub(super) fn set(&self, flag: impl Fn(&Shared) -> &AtomicBool, value: bool) {
        flag(&self.0).store(value, SeqCst);
    }

    pub(super) fn there(&self) -> bool {
        self.0.there.load(SeqCst)
    }

    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let n = |counter: &AtomicUsize| counter.load(SeqCst);
        (n(&self.0.n_announced), n(&self.0.n_renewed), n(&self.0.n_withdrawn))
    }

    async fn call(&self, counter: &AtomicUsize) -> Result<()> {
        counter.fetch_add(1, SeqCst);
        assert_eq!(self.0.n_running.fetch_add(1, SeqCst), 0, "two calls at once");
        let _done = Done(self);
        sleep(Duration::from_millis(10)).await;
        if self.0.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.0.denied.load(SeqCst) {
            return Err(Error::new(ErrorKind::Denied, "fake", "register"));
        }
        match self.0.down.load(SeqCst) {
            true => Err(Error::new(ErrorKind::Unavailable, "fake", "register")),
            false => Ok(()),
        }
    }

    pub(super) async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        let mut config = AnnounceConfig::new("fake");
        config.seed = Some(7);
        announce(self.clone(), registration, config, &Tasks::new()).await
    }
}

struct Done<'a>(&'a Fake);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.0.n_running.fetch_sub(1, SeqCst);
    }
}

#[async_trait]
impl Announcer for Fake {
    fn shows_health(&self) -> bool {
        self.0.shows_health.load(SeqCst)
    }

    async fn announce(&mut self, desired: &Announcement) -> Result<Renewal> {
        self.call(&self.0.n_announced).await?;
        self.0.there.store(true, SeqCst);
        self.0.forgotten.store(false, SeqCst);
        self.0.critical.store(matches!(desired.health, Health::Critical(_)), SeqCst);
        self.0.weight.store(usize::try_from(desired.instance.weight()).expect("small"), SeqCst);
        Ok(Renewal::Renewed(LeaseTtl::new(TTL)))
    }

    async fn renew(&mut self, desired: &Announcement) -> Result<Renewal> {
        self.call(&self.0.n_renewed).await?;
        self.0.critical.store(matches!(desired.health, Health::Critical(_)), SeqCst);
        Ok(match self.0.forgotten.load(SeqCst) {
            true => Renewal::Lost(LossReason::Gone),
            false => Renewal::Renewed(LeaseTtl::new(TTL)),
        })
    }

    async fn lost(&mut self) -> LossReason {
        self.0.lost.notified().await;
        LossReason::Gone
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.call(&self.0.n_withdrawn).await?;
        self.0.there.store(false, SeqCst);
        Ok(())
    }
}

pub(super) const TTL: Duration = Duration::from_secs(15);
