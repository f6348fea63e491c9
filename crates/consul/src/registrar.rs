//! Registers with an agent, and keeps the TTL check alive.

use std::time::Duration;

use tower_sd_core::{
    AnnounceConfig, Announcer, Desired, Registrar, Registration, RegistrationHandle, Renewal,
    Result, Tasks, Term, announce, async_trait,
};

use crate::{
    BACKEND, ConsulClient,
    client::{
        Known,
        request::{CheckRegistration, ServiceRegistration},
    },
    mapping,
};

/// Registers services with an agent, each with a TTL check that shows their health.
///
/// # Drop
///
/// With the last clone gone, registrations are no longer renewed; use [`close`](Self::close) to wait for those whose
/// handles were dropped.
#[derive(Clone, Debug)]
pub struct ConsulRegistrar {
    client: ConsulClient,
    settings: Settings,
    tasks: Tasks,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    ttl: Duration,
    deregister_critical_after: Duration,
}

/// One registration on the wire.
#[derive(Debug)]
struct ConsulAnnouncer {
    client: ConsulClient,
    settings: Settings,
    service_id: String,
    check_id: String,
    /// What the agent was told last.
    announced: Option<ServiceRegistration>,
    /// Renewals since the entry was compared with what was announced.
    renewals: u32,
}

impl ConsulRegistrar {
    /// A registrar with the defaults: a TTL of 15 s, renewed every 5 s; an entry that has been critical for 10 min is
    /// removed by Consul.
    #[must_use]
    pub fn new(client: &ConsulClient) -> Self {
        Self {
            client: client.clone(),
            settings: Settings { ttl: TTL, deregister_critical_after: DEREGISTER_CRITICAL_AFTER },
            tasks: Tasks::new(),
        }
    }

    /// How long the agent believes a heartbeat, at least 1 s; it is sent three times in that time. Default 15 s.
    ///
    /// The agent turns the check critical when it has heard nothing for so long, and followers drop the instance.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = ttl.max(MIN_TTL);
        self
    }

    /// Withdraws registrations whose handles are gone, stops the others' renewals, and waits for that.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, it goes on in the background.
    pub async fn close(&self) {
        self.tasks.close().await;
    }
}

#[async_trait]
impl Registrar for ConsulRegistrar {
    async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        // Refuses here what no agent would take, before a task is started.
        let service = mapping::registration(registration.service(), registration.instance())?;
        let announcer = ConsulAnnouncer {
            client: self.client.clone(),
            settings: self.settings,
            check_id: mapping::check_id(&service.id),
            service_id: service.id,
            announced: None,
            renewals: 0,
        };
        let mut config = AnnounceConfig::new(BACKEND);
        config.call_timeout = CALL_TIMEOUT + CALL_TIMEOUT;
        announce(announcer, registration, config, &self.tasks).await
    }
}

#[async_trait]
impl Announcer for ConsulAnnouncer {
    fn shows_health(&self) -> bool {
        true
    }

    async fn announce(&mut self, desired: &Desired) -> Result<Term> {
        let mut service = mapping::registration(&desired.service, &desired.instance)?;
        service.checks = vec![self.check()];
        self.announced = None;
        self.client.register(&service).await?;
        self.announced = Some(service);
        self.renewals = 0;
        // A check that exists keeps its old status, a new one is critical, and one that was never renewed is critical
        // again when the agent restarts: so the first heartbeat follows at once.
        match self.beat(desired).await? {
            Known::Yes => Ok(self.term()),
            Known::No => Err(crate::client::error::garbled(
                "register",
                "the agent forgot the check between two calls",
            )),
        }
    }

    async fn renew(&mut self, desired: &Desired) -> Result<Renewal> {
        if self.beat(desired).await? == Known::No {
            return Ok(Renewal::Lost);
        }
        self.renewals += 1;
        if self.renewals >= VERIFY_EVERY {
            self.renewals = 0;
            return self.verify().await;
        }
        Ok(Renewal::Held(self.term()))
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.announced = None;
        self.client.deregister(&self.service_id).await.map(|_| ())
    }
}

impl ConsulAnnouncer {
    /// Bounded so that another one still fits into the TTL.
    async fn beat(&self, desired: &Desired) -> Result<Known> {
        let bound = (self.settings.ttl / 3).clamp(MIN_TTL, CALL_TIMEOUT);
        let (check, health) = (&self.check_id, &desired.health);
        self.client.update_check(check, health, bound).await
    }

    /// The check may live while the service was overwritten.
    async fn verify(&self) -> Result<Renewal> {
        let found = self.client.agent_service(&self.service_id).await?;
        let ours = match (&self.announced, &found) {
            (Some(announced), Some(found)) => mapping::is_ours(announced, found),
            _ => false,
        };
        Ok(match ours {
            true => Renewal::Held(self.term()),
            false => Renewal::Lost,
        })
    }

    fn check(&self) -> CheckRegistration {
        CheckRegistration {
            id: self.check_id.clone(),
            name: "tower-sd heartbeat".to_owned(),
            ttl: Some(go_duration(self.settings.ttl)),
            status: None,
            deregister_critical_service_after: Some(go_duration(
                self.settings.deregister_critical_after,
            )),
        }
    }

    fn term(&self) -> Term {
        Term::of_ttl(self.settings.ttl)
    }
}

/// As Go parses it.
fn go_duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// Three heartbeats 5 s apart: an agent that is restarted is back before the TTL ends.
const TTL: Duration = Duration::from_secs(15);
/// A shorter one would turn critical by a busy machine's scheduling.
const MIN_TTL: Duration = Duration::from_secs(1);
/// Long enough to look at what is critical; whoever lives registers again.
const DEREGISTER_CRITICAL_AFTER: Duration = Duration::from_secs(600);
/// Without a quorum an agent takes 7 to 14 s to accept a registration.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// With the default TTL, the entry itself is looked at every 15 s.
const VERIFY_EVERY: u32 = 3;
