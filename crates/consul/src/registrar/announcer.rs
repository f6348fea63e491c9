use std::time::Duration;

use tokio::time::Instant;
use tower_sd_core::{
    Announcement, Announcer, ErrorKind, LossReason, Renewal, Result, Status, async_trait,
};

use super::{CALL_TIMEOUT, Settings, VERIFY_EVERY};
use crate::{
    BACKEND, ConsulClient,
    check::go_duration,
    client::{
        Known, PlacedCheck, error,
        reply::DefaultPolicy,
        request::{CheckRegistration, ServiceRegistration},
        status_of,
    },
    config::MIN_TTL,
    mapping,
};

/// One registration on the wire.
#[derive(Debug)]
pub(super) struct ConsulAnnouncer {
    client: ConsulClient,
    settings: Settings,
    service_id: String,
    /// What the agent was told last.
    announced: Option<ServiceRegistration>,
    /// When the entry was known to be what was announced.
    verified_at: Instant,
    /// ACLs deny by default: the agent may be unable to remove from the catalogue what it removes itself.
    guarded: bool,
    /// The agent's name in the catalogue, known where `guarded`.
    node: Option<String>,
}

impl ConsulAnnouncer {
    pub(super) fn new(client: ConsulClient, settings: Settings, service_id: String) -> Self {
        Self {
            client,
            settings,
            service_id,
            announced: None,
            verified_at: Instant::now(),
            guarded: false,
            node: None,
        }
    }
}

#[async_trait]
impl Announcer for ConsulAnnouncer {
    fn shows_health(&self) -> bool {
        self.settings.ttl.is_some()
    }

    async fn announce(&mut self, desired: &Announcement) -> Result<Renewal> {
        let service = self.registration(desired)?;
        self.announced = None;
        let meta = self.client.register(&service).await?;
        self.guarded = meta.default_policy == DefaultPolicy::Deny;
        // A check that exists keeps its old status, and one that was never renewed is critical when the agent restarts: so
        // the first heartbeat follows at once.
        let mut known = self.beat(desired, None).await?;
        if known == Known::Yes && desired.instance.status() == Status::Draining {
            // The registration has just ended a maintenance that there was.
            known = self.client.enter_maintenance(&self.service_id, "draining").await?;
        }
        self.tidy(&service).await;
        self.announced = Some(service);
        self.verified_at = Instant::now();
        match known {
            Known::Yes => Ok(Renewal::Renewed(self.settings.lease_ttl())),
            Known::No => {
                Err(error::garbled("register", "the agent forgot the service between two calls"))
            }
        }
    }

    async fn renew(&mut self, desired: &Announcement) -> Result<Renewal> {
        // Bounded so that another one still fits into the TTL.
        let ttl = self.settings.ttl.unwrap_or_default();
        let bound = (ttl / 3).clamp(MIN_TTL, CALL_TIMEOUT);
        if self.beat(desired, Some(bound)).await? == Known::No {
            return Ok(Renewal::Lost(LossReason::Gone));
        }
        if self.settings.ttl.is_some() && self.verified_at.elapsed() < VERIFY_EVERY {
            return Ok(Renewal::Renewed(self.settings.lease_ttl()));
        }
        self.verify().await
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.announced = None;
        self.client.deregister(&self.service_id).await?;
        match &self.node {
            Some(node) if self.guarded => self.unlist(node).await,
            _ => Ok(()),
        }
    }
}

impl ConsulAnnouncer {
    fn registration(&self, desired: &Announcement) -> Result<ServiceRegistration> {
        let mut service = mapping::registration(&desired.service, &desired.instance)?;
        let Settings { ttl, checks, warning_weight, tagged_addresses, .. } = &self.settings;
        service.weights.warning = warning_weight.unwrap_or(service.weights.warning);
        service.tagged_addresses.clone_from(tagged_addresses);
        let heartbeat = ttl.map(|ttl| CheckRegistration {
            id: mapping::check_id(&self.service_id),
            name: "tower-sd heartbeat".to_owned(),
            ttl: Some(go_duration(ttl)),
            // Of a check that is new; one write of the catalogue less.
            status: Some(status_of(&desired.health).0),
            ..CheckRegistration::default()
        });
        let own = checks.iter().enumerate().map(|(n, check)| {
            let id = format!("{}:{}", mapping::check_id(&self.service_id), n + 1);
            check.registration(id)
        });
        service.checks = heartbeat.into_iter().chain(own).collect();
        for check in &mut service.checks {
            // Each has to carry it: Consul knows no such setting of a service.
            check.deregister_critical_service_after =
                self.settings.deregister_critical_after.map(go_duration);
        }
        Ok(service)
    }

    async fn beat(&self, desired: &Announcement, bound: Option<Duration>) -> Result<Known> {
        if self.settings.ttl.is_none() {
            return Ok(Known::Yes);
        }
        let check = mapping::check_id(&self.service_id);
        self.client.update_check(&check, &desired.health, bound).await
    }

    /// The check may live while the service was overwritten.
    async fn verify(&mut self) -> Result<Renewal> {
        let found = self.client.agent_service(&self.service_id).await?;
        let ours = match (&self.announced, &found) {
            (Some(announced), Some(found)) => mapping::is_ours(announced, found),
            _ => false,
        };
        self.verified_at = Instant::now();
        if let Some(announced) = self.announced.take_if(|_| ours) {
            self.tidy(&announced).await;
            self.announced = Some(announced);
        }
        Ok(match ours {
            true => Renewal::Renewed(self.settings.lease_ttl()),
            false => Renewal::Lost(LossReason::Gone),
        })
    }

    /// Clears the catalogue of checks that the agent no longer has, and could not remove itself: the maintenance of a
    /// run before this one, or one that an operator has ended. What goes wrong is left for the next time.
    async fn tidy(&mut self, service: &ServiceRegistration) {
        if !self.guarded {
            return;
        }
        if let Err(error) = self.try_to_tidy(service).await {
            let service_id = &self.service_id;
            tracing::debug!(backend = BACKEND, service_id, %error, "the catalogue was not tidied");
        }
    }

    async fn try_to_tidy(&mut self, service: &ServiceRegistration) -> Result<()> {
        let Some(node) = self.node(&service.name).await? else {
            return Ok(());
        };
        let service_id = &self.service_id;
        // The catalogue before the agent: a check that somebody adds in between is then in neither or in both.
        let listed = self.client.listed_checks(&node, service_id).await?;
        let mut strays: Vec<String> = match self.announced {
            // What the token may not see may be there.
            None if listed.is_empty() => vec![mapping::maintenance_id(service_id)],
            _ => listed.into_iter().map(|check| check.id).collect(),
        };
        strays.retain(|id| service.checks.iter().all(|check| check.id != *id));
        if strays.is_empty() {
            return Ok(());
        }
        let at_agent = self.client.agent_checks(service_id).await?;
        strays.retain(|id| at_agent.iter().all(|check| check.id != *id));
        for check in &strays {
            if self.client.unlist_check(&node, check).await? == Known::Yes {
                tracing::info!(
                    backend = BACKEND,
                    service_id,
                    check,
                    "removed a check from the catalogue that the agent could not remove: give it a token"
                );
            }
        }
        Ok(())
    }

    /// The agent's name in the catalogue.
    async fn node(&mut self, service: &str) -> Result<Option<String>> {
        if self.node.is_none() {
            let checks = self.client.agent_checks(&self.service_id).await?;
            self.node = match checks.into_iter().next() {
                Some(PlacedCheck { node, .. }) => Some(node),
                None => self.client.node_of(service, &self.service_id).await?,
            };
        }
        Ok(self.node.clone())
    }

    /// Takes the service out of the catalogue, now that the agent has let it go.
    async fn unlist(&self, node: &str) -> Result<()> {
        let service_id = &self.service_id;
        let unlisted = async {
            // Somebody may have registered it anew already.
            match self.client.agent_service(service_id).await? {
                Some(_) => Ok(Known::No),
                None => self.client.unlist_service(node, service_id).await,
            }
        };
        match unlisted.await {
            Ok(Known::Yes) => {
                tracing::info!(
                    backend = BACKEND,
                    service_id,
                    "removed from the catalogue what the agent could not remove: give it a token"
                );
                Ok(())
            }
            Ok(Known::No) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Denied => Err(error),
            Err(error) => {
                tracing::warn!(backend = BACKEND, service_id, %error, "the agent may still be listed with it");
                Ok(())
            }
        }
    }
}
