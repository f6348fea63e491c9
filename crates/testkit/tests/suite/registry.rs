//! A registry of a hundred lines that has the bug one asks for.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tower_sd_core::{
    Announcement, Announcer, Error, ErrorKind, Instance, InstanceId, LeaseTtl, LossReason,
    ReadRequest, ReadResult, Renewal, Result, Source, Status, Tasks, async_trait,
};

pub(crate) const TTL: Duration = Duration::from_secs(3);

/// What is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Bug {
    None,
    /// An entry that nobody has registered.
    Ghost,
    /// A watch that never fires.
    MissesChanges,
    /// A watch that fires a few times.
    StopsAfterFew,
    /// The loop ends with the instancer, though somebody is subscribed.
    EndsWithInstancer,
    /// The second of two with one address is not stored.
    OneAddressOneEntry,
    /// The first page of a list is taken for the list.
    FirstPageOnly,
    WithdrawsNothing,
    WithdrawsTheService,
    UnknownIsAnError,
    /// The second registration of an id is an entry of its own.
    EntryPerRegistration,
    /// Removes before it writes.
    RemovesFirst,
    NeverNoticesLoss,
    ForgetsUpdates,
    HidesHealth,
    MatchesPrefixes,
    AsciiOnly,
    Truncates,
    SplitsAtSlash,
    /// This field is not stored.
    Forgets(&'static str),
    SlowClose,
    LeaksTasks,
    /// Answers as if nothing had happened.
    HidesOutage,
    ComesBackEmpty,
    WatchDies,
    /// A read that hung is never given up, nor answered.
    HangsForEver,
    GivesUp,
    AnnouncesAfterWithdrawal,
    RenewsTooRarely,
}

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) bug: Bug,
    state: Mutex<State>,
    changes: watch::Sender<()>,
    pub(crate) tasks: Tasks,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<(String, InstanceId), (Instance, Instant)>,
    /// Nothing expires before.
    expiry: Option<Instant>,
    away: bool,
    hangs: bool,
}

impl Store {
    pub(crate) fn new(bug: Bug) -> Self {
        Self { bug, state: Mutex::default(), changes: watch::Sender::new(()), tasks: Tasks::new() }
    }

    pub(crate) fn set(&self, away: bool, hangs: bool) {
        (self.lock().away, self.lock().hangs) = (away, hangs);
        self.changes.send_replace(());
    }

    pub(crate) fn remove(&self, service: &str, id: &InstanceId) -> bool {
        let removed = self.lock().entries.remove(&(service.to_owned(), id.clone()));
        self.changes.send_replace(());
        removed.is_some()
    }

    async fn call(&self) -> Result<()> {
        let mut changes = self.changes.subscribe();
        while self.lock().hangs {
            let _sender_is_in_self = changes.changed().await;
        }
        match self.lock().away && self.bug != Bug::HidesOutage {
            true => Err(Error::new(ErrorKind::Unavailable, "test", "call")),
            false => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.expiry.is_none_or(|at| at <= now) {
            state.entries.retain(|_, (_, expires_at)| *expires_at > now);
            state.expiry = state.entries.values().map(|(_, at)| *at).min();
        }
        state
    }

    async fn changed(&self, changes: &mut watch::Receiver<()>) {
        let expiry = self.lock().expiry;
        tokio::select! {
            _ = changes.changed() => {}
            () = async { sleep_until(expiry.expect("checked")).await }, if expiry.is_some() => {}
        }
    }

    pub(crate) fn leak(&self) {
        if self.bug == Bug::LeaksTasks {
            self.tasks.spawn(|stop| async move { stop.requested().await });
        }
    }
}

pub(crate) struct Reader {
    store: Arc<Store>,
    service: String,
    changes: watch::Receiver<()>,
    n_reads: u32,
    failed: bool,
}

impl Reader {
    pub(crate) fn new(store: Arc<Store>, service: &str) -> Self {
        store.leak();
        let changes = store.changes.subscribe();
        Self { store, service: service.to_owned(), changes, n_reads: 0, failed: false }
    }

    fn list(&self) -> Vec<Instance> {
        let (bug, state) = (self.store.bug, self.store.lock());
        let entries = state.entries.iter();
        let mut list: Vec<Instance> = entries
            .filter(|((service, _), _)| match bug {
                Bug::MatchesPrefixes => service.starts_with(&self.service),
                _ => *service == self.service,
            })
            .map(|(_, (instance, _))| instance.clone())
            .collect();
        match bug {
            Bug::Ghost => list.push(Instance::new("127.0.0.1", 1).with_id("ghost")),
            Bug::FirstPageOnly => list.truncate(500),
            Bug::ComesBackEmpty if self.failed => list.clear(),
            Bug::HidesOutage if state.away => list.clear(),
            _ => {}
        }
        list
    }
}

#[async_trait]
impl Source for Reader {
    type Item = Instance;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        self.n_reads += 1;
        if request.waits() {
            self.store.changed(&mut self.changes).await;
            match self.store.bug {
                Bug::MissesChanges => pending().await,
                Bug::HangsForEver if self.store.lock().hangs => pending().await,
                Bug::StopsAfterFew if self.n_reads > 4 => pending().await,
                Bug::HidesOutage if self.store.lock().away => pending().await,
                _ => {}
            }
        }
        if self.store.bug == Bug::WatchDies && self.failed {
            pending::<()>().await;
        }
        let called = self.store.call().await;
        self.failed |= called.is_err();
        called?;
        self.changes.mark_unchanged();
        Ok(ReadResult::set(self.list().into_iter().map(Ok).collect()))
    }
}

pub(crate) struct Writer {
    store: Arc<Store>,
    first: Option<Instance>,
    key: Option<(String, InstanceId)>,
    n_failures: u32,
}

impl Writer {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, first: None, key: None, n_failures: 0 }
    }

    async fn call(&mut self) -> Result<()> {
        let called = self.store.call().await;
        self.n_failures += u32::from(called.is_err());
        if self.store.bug == Bug::GivesUp && self.n_failures > 3 {
            pending::<()>().await;
        }
        called
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
        let twin = state.entries.values().any(|(other, _)| twin(other));
        if bug != Bug::OneAddressOneEntry || !twin {
            state.entries.insert(key.clone(), (instance, Instant::now() + TTL));
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

    async fn announce(&mut self, desired: &Announcement) -> Result<Renewal> {
        self.call().await?;
        self.put(desired).await;
        Ok(Renewal::Renewed(match self.store.bug {
            Bug::RenewsTooRarely => LeaseTtl::unlimited(TTL * 100),
            _ => LeaseTtl::new(TTL),
        }))
    }

    async fn renew(&mut self, _announcement: &Announcement) -> Result<Renewal> {
        self.call().await?;
        let held = Renewal::Renewed(LeaseTtl::new(TTL));
        let Some(key) = &self.key else { return Ok(Renewal::Lost(LossReason::Gone)) };
        Ok(match self.store.lock().entries.get_mut(key) {
            Some((_, expires_at)) => {
                *expires_at = Instant::now() + TTL;
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
            _ => self.store.remove(&service, &id),
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
                let instance = instance.map_or_else(|| Instance::new("127.0.0.1", 1), |(it, _)| it);
                late.spawn(|_stop| async move {
                    sleep(Duration::from_millis(500)).await;
                    let expires_at = Instant::now() + TTL * 2;
                    store.lock().entries.insert((service, id), (instance, expires_at));
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
    instance.with_status(Status::Passing)
}
