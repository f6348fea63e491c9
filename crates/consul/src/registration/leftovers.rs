use std::collections::BTreeSet;

use tower_sd_core::{ErrorKind, Result};

use crate::{
    BACKEND,
    client::{AgentEntry, ConsulClient, Known, reply::DefaultPolicy, request::ServiceRegistration},
    mapping,
};

/// What an agent without a token of its own leaves of a service in the catalogue.
///
/// The catalogue is read only after an event that can have left something there: a registration
/// that was none before, the end of a maintenance, a check that the agent no longer has.
#[derive(Debug)]
pub(super) struct Leftovers {
    client: ConsulClient,
    service_id: String,
    /// ACLs deny by default: the agent may be unable to remove from the catalogue.
    guarded: bool,
    /// The agent's name in the catalogue.
    node: Option<String>,
    /// The checks that the agent had at the last look.
    checks: BTreeSet<String>,
    suspected: bool,
}

impl Leftovers {
    pub(super) fn new(client: ConsulClient, service_id: String) -> Self {
        Self {
            client,
            service_id,
            guarded: false,
            node: None,
            checks: BTreeSet::new(),
            suspected: false,
        }
    }

    /// Takes note of a registration, and of the entry there was before it.
    pub(super) fn registered(&mut self, policy: DefaultPolicy, before: Option<&AgentEntry>) {
        self.guarded = policy == DefaultPolicy::Deny;
        if let Some(before) = before {
            self.observe(before);
        }
    }

    /// Takes note of the agent's checks.
    pub(super) fn observe(&mut self, entry: &AgentEntry) {
        let checks: BTreeSet<_> = entry.checks().map(|check| check.id.clone()).collect();
        self.suspected |= !self.checks.is_subset(&checks);
        self.checks = checks;
        let node = entry.checks().map(|check| check.node.clone());
        self.node = node.into_iter().find(|node| !node.is_empty()).or_else(|| self.node.take());
    }

    /// The catalogue may have a check that the agent no longer has.
    pub(super) fn suspect(&mut self) {
        self.suspected = true;
    }

    /// Removes the checks that the agent could not remove, if there can be any. A failure that may
    /// pass is repeated the next time.
    pub(super) async fn remove(&mut self, service: &ServiceRegistration) {
        if !self.guarded || !self.suspected {
            return;
        }
        let result = self.remove_checks(service).await;
        self.suspected = result.as_ref().is_err_and(tower_sd_core::Error::is_transient);
        if let Err(error) = result {
            let service_id = &self.service_id;
            tracing::debug!(backend = BACKEND, service_id, error = %error.chain(), "the catalogue was not tidied");
        }
    }

    async fn remove_checks(&mut self, service: &ServiceRegistration) -> Result<()> {
        let Some(node) = self.node(&service.name).await? else {
            return Ok(());
        };
        let service_id = &self.service_id;
        // The catalogue before the agent: a check that is added in between is then in neither or in
        // both.
        let listed = self.client.listed_checks(&node, service_id).await?;
        let mut strays: Vec<String> = match listed.is_empty() {
            // A check that the token may not see may be there.
            true => vec![mapping::maintenance_id(service_id)],
            false => listed.into_iter().map(|check| check.id).collect(),
        };
        strays.retain(|id| !service.has_check(id));
        if strays.is_empty() {
            return Ok(());
        }
        let at_agent = self.client.agent_entry("deregister", service_id).await?;
        let at_agent: Vec<_> = at_agent.iter().flat_map(AgentEntry::checks).collect();
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
            if let Some(entry) = self.client.agent_entry("deregister", &self.service_id).await? {
                self.observe(&entry);
            }
            if self.node.is_none() {
                self.node = self.client.node_of(service, &self.service_id).await?;
            }
        }
        Ok(self.node.clone())
    }

    /// Removes the service from the catalogue, now that the agent has deregistered it.
    pub(super) async fn remove_all(&self) -> Result<()> {
        let (true, Some(node)) = (self.guarded, &self.node) else {
            return Ok(());
        };
        let service_id = &self.service_id;
        let unlisted = async {
            // Another process may have registered it anew already.
            match self.client.agent_entry("deregister", service_id).await? {
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
