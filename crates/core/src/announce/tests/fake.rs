use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, time::sleep};

use crate::{
    AnnounceConfig, Announcement, Announcer, CheckResult, Error, ErrorKind, LeaseTtl, LossReason,
    Registration, RegistrationHandle, Renewal, Result, TaskGroup, announce,
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
    /// Another registration's entry is in the place of this one's.
    pub(super) is_taken: AtomicBool,
    /// An operator has set another status.
    pub(super) is_overridden: AtomicBool,
    /// Calls of these names panic, fail as unavailable, or hang.
    pub(super) panicking: Mutex<BTreeSet<&'static str>>,
    pub(super) failing: Mutex<BTreeSet<&'static str>>,
    pub(super) hanging: Mutex<BTreeSet<&'static str>>,
    pub(super) weight: AtomicU32,
    /// The weight that the registry refuses.
    pub(super) refused: AtomicU32,
    pub(super) ttl: Mutex<Option<LeaseTtl>>,
    /// The pause that failing calls request.
    pub(super) retry_after: Mutex<Option<Duration>>,
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

    /// Makes the calls of this name panic, fail or hang from now on.
    pub(super) fn add(
        &self,
        calls: impl Fn(&Shared) -> &Mutex<BTreeSet<&'static str>>,
        name: &'static str,
    ) {
        calls(&self.0).lock().expect("no panic under it").insert(name);
    }

    pub(super) fn clear(&self, calls: impl Fn(&Shared) -> &Mutex<BTreeSet<&'static str>>) {
        calls(&self.0).lock().expect("no panic under it").clear();
    }

    pub(super) fn there(&self) -> bool {
        self.0.there.load(SeqCst)
    }

    pub(super) fn weight(&self) -> u32 {
        self.0.weight.load(SeqCst)
    }

    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let n = |counter: &AtomicUsize| counter.load(SeqCst);
        (n(&self.0.n_announced), n(&self.0.n_renewed), n(&self.0.n_withdrawn))
    }

    pub(super) fn grants(&self, ttl: LeaseTtl) {
        *self.0.ttl.lock().expect("no panic under it") = Some(ttl);
    }

    pub(super) fn pauses(&self, retry_after: Option<Duration>) {
        *self.0.retry_after.lock().expect("no panic under it") = retry_after;
    }

    fn renewed(&self) -> Renewal {
        let ttl = *self.0.ttl.lock().expect("no panic under it");
        let ttl = ttl.unwrap_or_else(|| LeaseTtl::new(TTL));
        match self.0.is_overridden.load(SeqCst) {
            true => Renewal::Overridden(ttl, "OUT"),
            false => Renewal::Renewed(ttl),
        }
    }

    async fn call(&self, name: &'static str, counter: &AtomicUsize) -> Result<()> {
        counter.fetch_add(1, SeqCst);
        assert_eq!(self.0.n_running.fetch_add(1, SeqCst), 0, "two concurrent calls");
        let _done = Done(self);
        sleep(Duration::from_millis(10)).await;
        let has = |calls: &Mutex<BTreeSet<_>>| calls.lock().expect("no panic").contains(name);
        assert!(!has(&self.0.panicking), "a bug of the backend");
        if self.0.hangs.load(SeqCst) || has(&self.0.hanging) {
            std::future::pending::<()>().await;
        }
        if self.0.denied.load(SeqCst) {
            return Err(Error::new(ErrorKind::Denied, "fake", name));
        }
        match self.0.down.load(SeqCst) || has(&self.0.failing) {
            true => {
                let error = Error::new(ErrorKind::Unavailable, "fake", name);
                let pause = *self.0.retry_after.lock().expect("no panic under it");
                Err(pause.into_iter().fold(error, Error::with_retry_after))
            }
            false => Ok(()),
        }
    }

    pub(super) async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        let config = AnnounceConfig { seed: Some(7), ..AnnounceConfig::default() };
        announce("fake", Box::new(self.clone()), registration, config, &TaskGroup::new()).await
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

    async fn announce(&mut self, announcement: &Announcement) -> Result<Renewal> {
        self.call("announce", &self.0.n_announced).await?;
        let weight = announcement.instance.weight();
        if weight != 0 && weight == self.0.refused.load(SeqCst) {
            return Err(Error::new(ErrorKind::Config, "fake", "announce"));
        }
        if self.0.is_taken.load(SeqCst) {
            if !announcement.takes_over {
                return Ok(Renewal::Lost(LossReason::TakenOver { by: "another".to_owned() }));
            }
            self.0.is_taken.store(false, SeqCst);
        }
        self.0.there.store(true, SeqCst);
        self.0.forgotten.store(false, SeqCst);
        self.0.critical.store(matches!(announcement.health, CheckResult::Critical(_)), SeqCst);
        self.0.weight.store(weight, SeqCst);
        Ok(self.renewed())
    }

    async fn renew(&mut self, announcement: &Announcement) -> Result<Renewal> {
        self.call("renew", &self.0.n_renewed).await?;
        self.0.critical.store(matches!(announcement.health, CheckResult::Critical(_)), SeqCst);
        if self.0.is_taken.load(SeqCst) {
            return Ok(Renewal::Lost(LossReason::TakenOver { by: "another".to_owned() }));
        }
        Ok(match self.0.forgotten.load(SeqCst) {
            true => Renewal::Lost(LossReason::Gone),
            false => self.renewed(),
        })
    }

    async fn lost(&mut self) -> LossReason {
        let panics = self.0.panicking.lock().expect("no panic under it").contains("lost");
        assert!(!panics, "a bug of the backend");
        self.0.lost.notified().await;
        match self.0.is_taken.load(SeqCst) {
            true => LossReason::TakenOver { by: "another".to_owned() },
            false => LossReason::Gone,
        }
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.call("withdraw", &self.0.n_withdrawn).await?;
        self.0.there.store(false, SeqCst);
        Ok(())
    }
}

pub(super) const TTL: Duration = Duration::from_secs(15);
