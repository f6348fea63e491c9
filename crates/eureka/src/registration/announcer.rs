use std::time::Duration;

use tower_sd_core::{
    Announcement, Announcer, CheckResult, Error, InstanceStatus, LeaseTtl, LossReason, Renewal,
    Result, async_trait,
};

use super::{clock::Clock, options::RegistrationOptions};
use crate::{
    client::{
        EurekaClient, Known,
        reply::{InstanceInfo, Status},
        request::{InstanceRequest, LeaseRequest, RegistrationRequest},
    },
    error, mapping,
};

/// One registration on the wire.
///
/// A server has no conditional write: each write is preceded by a read of the entry. Within that
/// one round trip another registration of the id can be overwritten or removed; it notices with its
/// next renewal.
#[derive(Debug)]
pub(crate) struct EurekaAnnouncer {
    client: EurekaClient,
    options: RegistrationOptions,
    lease: LeaseRequest,
    app: String,
    id: String,
    incarnation: String,
    clock: Clock,
    /// The last accepted entry; `None` where the entry is not ours.
    announced: Option<InstanceRequest>,
    /// The instance has passed its health check: a failure is an end, not a start.
    has_passed: bool,
    /// Out of service by this registration, not by an operator.
    draining: bool,
    /// The draining has found an operator's override, which outlives it.
    keeps_override: bool,
}

impl EurekaAnnouncer {
    pub(super) fn new(
        client: EurekaClient,
        options: RegistrationOptions,
        lease: LeaseRequest,
        app: String,
        id: String,
    ) -> Self {
        Self {
            client,
            options,
            lease,
            app,
            id,
            incarnation: String::new(),
            clock: Clock::new(),
            announced: None,
            has_passed: false,
            draining: false,
            keeps_override: false,
        }
    }
}

#[async_trait]
impl Announcer for EurekaAnnouncer {
    fn shows_health(&self) -> bool {
        true
    }

    async fn announce(&mut self, announcement: &Announcement) -> Result<Renewal> {
        announcement.incarnation().clone_into(&mut self.incarnation);
        let found = self.client.entry("register", &self.app, &self.id).await;
        let found = found.map_err(Error::without_effect)?;
        if let Some(by) = self.owner_beside(found.as_ref())
            && !announcement.takes_over
        {
            return Ok(self.lost(LossReason::TakenOver { by }));
        }
        self.write(announcement, found.as_ref()).await
    }

    async fn renew(&mut self, announcement: &Announcement) -> Result<Renewal> {
        let Some(found) = self.client.entry("renew", &self.app, &self.id).await? else {
            return Ok(self.lost(LossReason::Gone));
        };
        if let Some(by) = self.owner_beside(Some(&found)) {
            return Ok(self.lost(LossReason::TakenOver { by }));
        }
        // One without an owner took its place: another program's, under the same id.
        let is_ours = mapping::is_ours(&self.incarnation, &found);
        let Some(announced) = self.announced.as_ref().filter(|_| is_ours) else {
            return Ok(self.lost(LossReason::Gone));
        };
        // An operator's change of the metadata makes the entry younger.
        let timestamp = announced.last_dirty_timestamp.max(found.last_dirty_timestamp);
        let status = announced.status;
        // First the heartbeat: a server that refuses what differs must not end the lease.
        if self.client.renew(&self.app, &self.id, status, timestamp).await? == Known::No {
            return Ok(self.lost(LossReason::Gone));
        }
        let Ok(desired) = self.entry(announcement) else {
            // An update that its announcement will refuse.
            return Ok(self.renewed(Some(&found)));
        };
        // A write that was not answered, or was copied late from a peer.
        let is_outdated = !self.is_overridden(&found) && !mapping::has_status_of(&found, announced);
        if is_outdated || differ(announced, &desired) {
            match self.write(announcement, Some(&found)).await {
                Err(error) if desired.status == status => {
                    tracing::debug!(
                        backend = crate::BACKEND,
                        error = %error.chain(),
                        "entry not updated: it is written again with the next renewal"
                    );
                }
                written => return written,
            }
        }
        Ok(self.renewed(Some(&found)))
    }

    async fn withdraw(&mut self) -> Result<()> {
        self.announced = None;
        let found = self.client.entry("deregister", &self.app, &self.id).await?;
        let Some(found) = found else { return Ok(()) };
        let (app, id) = (&self.app, &self.id);
        if mapping::is_ours(&self.incarnation, &found) {
            self.client.deregister(app, id).await?;
        } else {
            let host = &found.host_name;
            tracing::info!(backend = crate::BACKEND, app, id, host, "left in place: not ours");
        }
        Ok(())
    }
}

impl EurekaAnnouncer {
    /// Writes the entry with a timestamp that is younger than that of the one found.
    async fn write(
        &mut self,
        announcement: &Announcement,
        found: Option<&InstanceInfo>,
    ) -> Result<Renewal> {
        let mut desired = self.entry(announcement)?;
        desired.last_dirty_timestamp = self.clock.next(found.map(|it| it.last_dirty_timestamp));
        let drains = announcement.instance.status() == InstanceStatus::Draining;
        if found.is_some_and(|found| self.is_stuck(found, &desired)) {
            let instance = InstanceRequest { status: Status::Starting, ..desired.clone() };
            self.client.register(&RegistrationRequest { instance }).await?;
            desired.last_dirty_timestamp = self.clock.next(None);
        }
        let (app, id) = (&self.app, &self.id);
        // Noted before the entry loses its mark: the end of the override may fail, and is repeated.
        self.draining |= !drains && found.is_some_and(mapping::is_draining);
        let is_operators = found.is_some_and(|found| self.is_out_by_operator(found));
        let keeps_override = self.keeps_override || is_operators;
        self.keeps_override |= is_operators && drains;
        let mut instance = desired.clone();
        if keeps_override && drains {
            // A successor must not end it.
            mapping::unmark(&mut instance);
        }
        self.client.register(&RegistrationRequest { instance }).await?;
        let known = if keeps_override {
            Known::Yes
        } else if drains {
            // The only way out of service: over an entry that is `UP` a server ignores this status.
            self.client.set_status(app, id, Status::OutOfService).await?
        } else if self.draining {
            self.client.end_override(app, id, desired.status).await?
        } else {
            Known::Yes
        };
        if known == Known::No {
            return Err(error::garbled("register", "the server lost the entry between two calls"));
        }
        self.draining = drains;
        self.keeps_override &= drains;
        self.has_passed |= desired.status == Status::Up;
        self.announced = Some(desired);
        Ok(self.renewed(found))
    }

    /// The entry of an announcement, without a timestamp.
    fn entry(&self, announcement: &Announcement) -> Result<InstanceRequest> {
        let Announcement { service, health, .. } = announcement;
        let mut instance = announcement.instance.clone();
        if let (None, Some(zone)) = (instance.zone(), &self.client.config().zone) {
            instance = instance.with_zone(zone.as_str());
        }
        let mut entry = mapping::registration(service, &instance, &self.incarnation, self.lease)?;
        entry.status = match (instance.status(), health) {
            // Until it is out of service: no request comes in between.
            (InstanceStatus::Draining, _) => Status::Starting,
            (InstanceStatus::Critical, _) => Status::Down,
            (_, CheckResult::Critical(_)) if self.has_passed => Status::Down,
            (_, CheckResult::Critical(_)) => Status::Starting,
            _ => Status::Up,
        };
        if matches!(health, CheckResult::Warning(_)) {
            mapping::warn(&mut entry);
        }
        let RegistrationOptions { home_page_url, status_page_url, health_check_url } =
            self.options.clone();
        Ok(InstanceRequest { home_page_url, status_page_url, health_check_url, ..entry })
    }

    /// Whether the entry would stay out of service although no override requests that: over such an
    /// entry a server ignores `UP`, unless another status comes before.
    fn is_stuck(&self, found: &InstanceInfo, desired: &InstanceRequest) -> bool {
        let is_out = found.status == Status::OutOfService;
        is_out && !self.is_overridden(found) && desired.status == Status::Up
    }

    /// Whether a status other than the announced one may be in force: of an operator, or of a
    /// draining.
    fn is_overridden(&self, found: &InstanceInfo) -> bool {
        self.draining || found.overridden_status() != Status::Unknown
    }

    /// Whether an operator has set a status in which the instance gets no requests. A draining sets
    /// `OUT_OF_SERVICE` alone.
    fn is_out_by_operator(&self, found: &InstanceInfo) -> bool {
        match found.overridden_status() {
            Status::Unknown | Status::Up => false,
            Status::OutOfService => !self.draining && !mapping::is_draining(found),
            Status::Down | Status::Starting => true,
        }
    }

    fn owner_beside(&self, found: Option<&InstanceInfo>) -> Option<String> {
        mapping::owner_beside(&self.incarnation, found?)
    }

    fn renewed(&self, found: Option<&InstanceInfo>) -> Renewal {
        let lease = LeaseTtl::new(Duration::from_secs(self.lease.duration_in_secs));
        // An override of ours has a mark, and ends with the draining.
        let operators = found.filter(|found| !self.draining && !mapping::is_draining(found));
        match operators.map(InstanceInfo::overridden_status) {
            None | Some(Status::Unknown) => Renewal::Renewed(lease),
            // An operator can end an override by one with the status of the announcement.
            Some(status) if self.announced.as_ref().is_some_and(|it| it.status == status) => {
                Renewal::Renewed(lease)
            }
            Some(status) => Renewal::Overridden(lease, status.as_str()),
        }
    }

    fn lost(&mut self, reason: LossReason) -> Renewal {
        self.announced = None;
        Renewal::Lost(reason)
    }
}

/// Whether two entries differ in more than their age.
fn differ(announced: &InstanceRequest, desired: &InstanceRequest) -> bool {
    let last_dirty_timestamp = announced.last_dirty_timestamp;
    *announced != InstanceRequest { last_dirty_timestamp, ..desired.clone() }
}
