//! The writing half of the registry.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tower_sd_core::{
    Announcement, Announcer, Error, ErrorKind, Instance, InstanceId, InstanceStatus, LeaseTtl,
    LossReason, Renewal, Result, async_trait,
};

use crate::registry::{Bug, Entry, Store, TTL};

pub(crate) struct Writer {
    store: Arc<Store>,
    first: Option<Instance>,
    incarnation: String,
    was_taken: bool,
    key: Option<(String, InstanceId)>,
    n_failures: u32,
}

impl Writer {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let incarnation = String::new();
        Self { store, first: None, incarnation, was_taken: false, key: None, n_failures: 0 }
    }

    async fn call(&mut self) -> Result<()> {
        let called = self.store.call().await;
        self.n_failures += u32::from(called.is_err());
        if self.store.bug == Bug::GivesUp && self.n_failures > 3 {
            pending::<()>().await;
        }
        called
    }

    /// The entry is another registration's.
    fn taken_over(&self) -> Option<LossReason> {
        let taken = || Some(LossReason::TakenOver { by: "another".to_owned() });
        if self.store.bug == Bug::NeverBack && self.was_taken {
            return taken();
        }
        match self.store.lock().entries.get(self.key.as_ref()?) {
            Some(entry) if entry.incarnation != self.incarnation => taken(),
            _ => None,
        }
    }

    async fn put(&mut self, desired: &Announcement) {
        let bug = self.store.bug;
        let wanted = match bug {
            Bug::ForgetsUpdates => self.first.get_or_insert_with(|| desired.instance.clone()),
            _ => &desired.instance,
        };
        let mut instance = stored(bug, wanted);
        let service = mangled(bug, &desired.service);
        let taken = |id: &InstanceId| {
            self.store.lock().entries.contains_key(&(service.clone(), id.clone()))
        };
        if bug == Bug::EntryPerRegistration && self.key.is_none() && taken(instance.id()) {
            instance = instance.with_id("second");
        }
        let key = (service, instance.id().clone());
        if bug == Bug::RemovesFirst {
            self.store.remove(&key.0, &key.1);
            sleep(Duration::from_millis(200)).await;
        }
        let mut state = self.store.lock();
        let twin = |other: &Instance| other.same_address(&instance) && other.id() != instance.id();
        let twin = state.entries.values().any(|other| twin(&other.instance));
        if bug != Bug::OneAddressOneEntry || !twin {
            let incarnation = self.incarnation.clone();
            // An update does not renew.
            let expires_at = match state.entries.get(&key) {
                Some(old) if old.incarnation == incarnation => old.expires_at,
                _ => Instant::now() + TTL,
            };
            state.entries.insert(key.clone(), Entry { instance, incarnation, expires_at });
        }
        drop(state);
        self.key = Some(key);
        self.store.changes.send_replace(());
    }
}

#[async_trait]
impl Announcer for Writer {
    fn shows_health(&self) -> bool {
        self.store.bug == Bug::HidesHealth
    }

    async fn announce(&mut self, announcement: &Announcement) -> Result<Renewal> {
        self.call().await?;
        announcement.incarnation().clone_into(&mut self.incarnation);
        let bug = self.store.bug;
        if announcement.instance.metadata().values().any(|value| value.len() > MAX_VALUE) {
            if let (Bug::RemovesRefused, Some((service, id))) = (bug, &self.key) {
                self.store.remove(service, id);
            }
            return Err(Error::new(ErrorKind::Config, "test", "register"));
        }
        if let Some(loss) = self.taken_over()
            && !announcement.takes_over
            && bug != Bug::WritesForAnother
        {
            return Ok(Renewal::Lost(loss));
        }
        self.put(announcement).await;
        Ok(Renewal::Renewed(match self.store.bug {
            Bug::RenewsTooRarely => LeaseTtl::unlimited(TTL * 100),
            _ => LeaseTtl::new(TTL),
        }))
    }

    async fn renew(&mut self, _announcement: &Announcement) -> Result<Renewal> {
        self.call().await?;
        let held = Renewal::Renewed(LeaseTtl::new(TTL));
        let Some(key) = &self.key else { return Ok(Renewal::Lost(LossReason::Gone)) };
        if self.store.bug != Bug::RenewsForAnother
            && let Some(loss) = self.taken_over()
        {
            self.was_taken = true;
            return Ok(Renewal::Lost(loss));
        }
        if self.store.bug == Bug::NeverRenewedOnceBack && self.was_taken {
            return Ok(held);
        }
        Ok(match self.store.lock().entries.get_mut(key) {
            Some(entry) => {
                entry.expires_at = Instant::now() + TTL;
                held
            }
            None if self.store.bug == Bug::NeverNoticesLoss => held,
            None if self.store.bug == Bug::OneAddressOneEntry => held,
            None => Renewal::Lost(LossReason::Gone),
        })
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.call().await?;
        self.store.leak();
        let Some((service, id)) = self.key.clone() else { return Ok(()) };
        let instance = self.store.lock().entries.get(&(service.clone(), id.clone())).cloned();
        let removed = match self.store.bug {
            Bug::WithdrawsNothing => true,
            Bug::WithdrawsForAnother => self.store.remove(&service, &id),
            _ => self.taken_over().is_none() && self.store.remove(&service, &id),
        };
        match (self.store.bug, instance) {
            (Bug::UnknownIsAnError, _) if !removed => {
                return Err(Error::new(ErrorKind::NotFound, "test", "withdraw"));
            }
            (Bug::WithdrawsTheService, _) => {
                self.store.lock().entries.retain(|(other, _), _| *other != service);
            }
            (Bug::AnnouncesAfterWithdrawal, instance) => {
                let (late, store) = (self.store.tasks.clone(), Arc::clone(&self.store));
                let instance =
                    instance.map_or_else(|| Instance::new("127.0.0.1", 1), |entry| entry.instance);
                late.spawn(|_stop| async move {
                    sleep(Duration::from_millis(500)).await;
                    let expires_at = Instant::now() + TTL * 2;
                    let entry = Entry { instance, incarnation: String::new(), expires_at };
                    store.lock().entries.insert((service, id), entry);
                });
            }
            _ => {}
        }
        Ok(())
    }
}

fn mangled(bug: Bug, name: &str) -> String {
    match bug {
        Bug::AsciiOnly => name.chars().filter(char::is_ascii).collect(),
        Bug::Truncates => name.chars().take(100).collect(),
        Bug::SplitsAtSlash => name.split('/').next().unwrap_or(name).to_owned(),
        _ => name.to_owned(),
    }
}

/// What is left of an instance.
fn stored(bug: Bug, sent: &Instance) -> Instance {
    let kept = |field| bug != Bug::Forgets(field);
    let (host, port) = (
        if kept("host") { sent.host() } else { "127.0.0.1" },
        if kept("port") { sent.port() } else { 1 },
    );
    let mut instance = Instance::new(host, port).with_id(mangled(bug, sent.id().as_str()));
    if let (Some(scheme), true) = (sent.scheme(), kept("scheme")) {
        instance = instance.with_scheme(scheme);
    }
    if kept("weight") {
        instance = instance.with_weight(sent.weight());
    }
    if kept("priority") {
        instance = instance.with_priority(sent.priority());
    }
    if let (Some(zone), true) = (sent.zone(), kept("zone")) {
        instance = instance.with_zone(zone);
    }
    if kept("tags") {
        instance = instance.with_tags(sent.tags().to_vec());
    }
    for (key, value) in sent.metadata().iter().filter(|_| kept("metadata")) {
        instance = instance.with_metadata(key, value);
    }
    if let (Some(at), true) = (sent.started_at_ms(), kept("start time")) {
        instance = instance.with_started_at_ms(at);
    }
    instance.with_status(if kept("status") { sent.status() } else { InstanceStatus::Passing })
}

/// The most that a value of the metadata may have.
const MAX_VALUE: usize = 1_000_000;
