use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tower_sd_core::{
    Announcement, Announcer, Error, ErrorKind, InstanceStatus, LossReason, Renewal, Result,
    async_trait,
};

use super::{
    check::go_duration,
    leftovers::Leftovers,
    options::{CALL_TIMEOUT, RegistrationOptions, Settings, VERIFY_EVERY},
};
use crate::{
    BACKEND,
    client::{
        AgentEntry, ConsulClient, Known,
        request::{CheckRegistration, ServiceRegistration},
        status_of,
    },
    error, mapping,
};

/// One registration on the wire.
///
/// The agent has no conditional write: each write is preceded by a read of the entry. Within that
/// one round trip another registration of the id can be overwritten or removed; it notices by its
/// own verification, within a TTL.
#[derive(Debug)]
pub(crate) struct ConsulAnnouncer {
    client: ConsulClient,
    settings: Settings,
    service_id: String,
    incarnation: String,
    /// The last accepted registration; `None` where the entry is not ours.
    announced: Option<Announced>,
    /// When the entry was known to be as registered.
    verified_at: Instant,
    leftovers: Leftovers,
}

#[derive(Debug)]
struct Announced {
    service: ServiceRegistration,
    /// The agent writes the entry into the catalogue with the token of the registration, not with
    /// that of a heartbeat.
    token_generation: u64,
    draining: bool,
}

impl ConsulAnnouncer {
    pub(super) fn new(client: ConsulClient, settings: Settings, service_id: String) -> Self {
        let leftovers = Leftovers::new(client.clone(), service_id.clone());
        Self {
            client,
            settings,
            service_id,
            incarnation: String::new(),
            announced: None,
            verified_at: Instant::now(),
            leftovers,
        }
    }
}

#[async_trait]
impl Announcer for ConsulAnnouncer {
    fn shows_health(&self) -> bool {
        self.settings.ttl.is_some()
    }

    async fn announce(&mut self, announcement: &Announcement) -> Result<Renewal> {
        announcement.incarnation().clone_into(&mut self.incarnation);
        let found = self.client.agent_entry("register", &self.service_id).await;
        let found = found.map_err(Error::without_effect)?;
        if let Some(by) = self.owner_beside(found.as_ref()) {
            if !announcement.takes_over {
                return Ok(self.lost(LossReason::TakenOver { by }));
            }
            self.warn_of_predecessor(found.as_ref(), &by);
        }
        let token_generation = self.client.token_generation();
        let service = self.registration(announcement, token_generation)?;
        let accepted = self.client.register(&service).await?;
        if accepted.token_generation != token_generation {
            return Ok(self.lost(LossReason::SessionEnded));
        }
        let replaces = if announcement.takes_over { found.as_ref() } else { None };
        self.remove_checks_beside(&service, replaces).await?;
        let draining = announcement.instance.status() == InstanceStatus::Draining;
        let was_draining = self.announced.as_ref().is_some_and(|before| before.draining);
        self.maintain(draining, found.as_ref()).await?;
        // A check that exists keeps its status, and one that was never renewed is critical after a
        // restart of the agent: so a heartbeat follows.
        if self.beat(announcement).await? == Known::No {
            let message = "the agent lost the service between two calls";
            return Err(error::garbled("register", message));
        }
        self.verified_at = Instant::now();
        self.leftovers.registered(accepted.default_policy, found.as_ref());
        if self.announced.is_none() || was_draining {
            self.leftovers.suspect();
        }
        let _late = timeout(self.step(), self.leftovers.remove(&service)).await;
        self.announced = Some(Announced { service, token_generation, draining });
        Ok(Renewal::Renewed(self.settings.lease_ttl()))
    }

    async fn renew(&mut self, announcement: &Announcement) -> Result<Renewal> {
        let Some(announced) = &self.announced else {
            // No heartbeat: the check of that name is another registration's.
            return self.verify().await;
        };
        if self.beat(announcement).await? == Known::No {
            return Ok(self.lost(LossReason::Gone));
        }
        let token_generation = announced.token_generation;
        let deadline = Instant::now() + self.step();
        let verified = if self.settings.ttl.is_none() {
            self.verify().await?
        } else if self.verified_at.elapsed() >= self.verify_interval() {
            self.verified_by(deadline).await?
        } else {
            Renewal::Renewed(self.settings.lease_ttl())
        };
        if self.client.token_generation() != token_generation {
            return Ok(self.lost(LossReason::SessionEnded));
        }
        if let Some(Announced { service, .. }) = &self.announced {
            let _late = timeout_at(deadline, self.leftovers.remove(service)).await;
        }
        Ok(verified)
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.announced = None;
        let found = self.client.agent_entry("deregister", &self.service_id).await?;
        if let Some(AgentEntry { service, .. }) = found {
            let service_id = &self.service_id;
            if !mapping::is_ours(&self.incarnation, &service) {
                let address = &service.address;
                tracing::info!(backend = BACKEND, service_id, address, "left in place: not ours");
                return Ok(());
            }
            self.client.deregister(service_id).await?;
        }
        self.leftovers.remove_all().await
    }
}

impl ConsulAnnouncer {
    fn registration(
        &self,
        announcement: &Announcement,
        token_generation: u64,
    ) -> Result<ServiceRegistration> {
        let Announcement { service, instance, health, .. } = announcement;
        let mut service = mapping::registration(service, instance, &self.incarnation)?;
        let Settings { ttl, options } = &self.settings;
        let RegistrationOptions { checks, warning_weight, tagged_addresses, .. } = options;
        service.weights.warning =
            warning_weight.map_or(service.weights.warning, |weight| weight.max(1));
        service.tagged_addresses.clone_from(tagged_addresses);
        service.enable_tag_override = options.enable_tag_override;
        let heartbeat = ttl.map(|ttl| CheckRegistration {
            id: mapping::check_id(&self.service_id),
            name: "tower-sd heartbeat".to_owned(),
            ttl: Some(go_duration(ttl)),
            // Of a check that is new; one write of the catalogue less.
            status: Some(status_of(health).0),
            ..CheckRegistration::default()
        });
        let own = checks
            .iter()
            .enumerate()
            .map(|(n, check)| check.registration(mapping::own_check_id(&self.service_id, n + 1)));
        service.checks = heartbeat.into_iter().chain(own).collect();
        for check in &mut service.checks {
            // An agent whose write of a check was denied takes that check for written until it
            // differs: so it differs with each process and each token.
            check.notes = format!("incarnation {}, token {token_generation}", self.incarnation);
            // Each must carry it: Consul has no such setting of a service.
            check.deregister_critical_service_after =
                options.deregister_critical_after.map(go_duration);
        }
        Ok(service)
    }

    fn owner_beside(&self, found: Option<&AgentEntry>) -> Option<String> {
        mapping::owner_beside(&self.incarnation, &found?.service)
    }

    fn warn_of_predecessor(&self, found: Option<&AgentEntry>, by: &str) {
        let heartbeat = mapping::check_id(&self.service_id);
        let mut checks = found.into_iter().flat_map(AgentEntry::checks);
        if checks.any(|check| check.id == heartbeat && check.status != "critical") {
            let service_id = &self.service_id;
            tracing::warn!(
                backend = BACKEND,
                service_id,
                from = by,
                "took over the entry of another registration, which lives or has just ended"
            );
        }
    }

    /// Removes the checks that a predecessor had and this registration has not. Maintenance stays.
    async fn remove_checks_beside(
        &self,
        service: &ServiceRegistration,
        found: Option<&AgentEntry>,
    ) -> Result<()> {
        let maintenance = mapping::maintenance_id(&self.service_id);
        for check in found.into_iter().flat_map(AgentEntry::checks) {
            if check.id != maintenance && !service.has_check(&check.id) {
                self.client.deregister_check(&check.id).await?;
            }
        }
        Ok(())
    }

    /// Enters or ends maintenance; that of an operator is left alone.
    async fn maintain(&self, draining: bool, found: Option<&AgentEntry>) -> Result<()> {
        let maintenance = mapping::maintenance_id(&self.service_id);
        let mut checks = found.into_iter().flat_map(AgentEntry::checks);
        let reason = checks.find(|check| check.id == maintenance).map(|check| check.notes.as_str());
        let known = match (draining, reason) {
            (true, None) => self.client.set_maintenance(&self.service_id, Some(DRAINING)).await?,
            (false, Some(DRAINING)) => self.client.set_maintenance(&self.service_id, None).await?,
            _ => Known::Yes,
        };
        match known {
            Known::Yes => Ok(()),
            Known::No => Err(error::garbled("register", "the agent lost the service")),
        }
    }

    /// Proves life. Bounded so that the next attempt still fits into the TTL.
    async fn beat(&self, announcement: &Announcement) -> Result<Known> {
        if self.settings.ttl.is_none() {
            return Ok(Known::Yes);
        }
        let check = mapping::check_id(&self.service_id);
        self.client.update_check(&check, &announcement.health, self.step()).await
    }

    /// A third of the TTL: heartbeat, verification and the pause before the next one have it each.
    fn step(&self) -> Duration {
        let ttl = self.settings.ttl.unwrap_or(CALL_TIMEOUT);
        (ttl / 3).clamp(MIN_STEP, CALL_TIMEOUT)
    }

    /// At least once within a TTL: a heartbeat alone does not notice another owner.
    fn verify_interval(&self) -> Duration {
        self.settings.ttl.map_or(VERIFY_EVERY, |ttl| VERIFY_EVERY.min(ttl / 2))
    }

    /// Verifies beside a heartbeat, which has proved life: a failure is not one of the renewal.
    ///
    /// # Errors
    ///
    /// The answer is not an agent's, so that of the heartbeat was none either.
    async fn verified_by(&mut self, deadline: Instant) -> Result<Renewal> {
        match timeout_at(deadline, self.verify()).await {
            Ok(Ok(renewal)) => return Ok(renewal),
            Ok(Err(error)) if error.kind() == ErrorKind::Protocol => return Err(error),
            Ok(Err(error)) => {
                let service_id = &self.service_id;
                tracing::debug!(backend = BACKEND, service_id, error = %error.chain(), "not verified");
            }
            Err(_elapsed) => {
                let service_id = &self.service_id;
                tracing::debug!(backend = BACKEND, service_id, "not verified in time");
            }
        }
        Ok(Renewal::Renewed(self.settings.lease_ttl()))
    }

    /// Compares the entry itself: the check may live while the service was overwritten.
    async fn verify(&mut self) -> Result<Renewal> {
        let Some(found) = self.client.agent_entry("renew", &self.service_id).await? else {
            return Ok(self.lost(LossReason::Gone));
        };
        if let Some(by) = self.owner_beside(Some(&found)) {
            return Ok(self.lost(LossReason::TakenOver { by }));
        }
        self.verified_at = Instant::now();
        match &self.announced {
            Some(ours) if mapping::is_as_registered(&ours.service, &found.service) => {
                self.leftovers.observe(&found);
                Ok(Renewal::Renewed(self.settings.lease_ttl()))
            }
            _ => Ok(self.lost(LossReason::Gone)),
        }
    }

    fn lost(&mut self, reason: LossReason) -> Renewal {
        self.announced = None;
        Renewal::Lost(reason)
    }
}

/// Half of the shortest TTL.
const MIN_STEP: Duration = Duration::from_millis(500);
/// The reason of a maintenance that is our own.
const DRAINING: &str = "draining (tower-sd)";
