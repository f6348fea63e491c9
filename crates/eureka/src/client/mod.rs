//! The part of Eureka's REST interface that discovery needs, typed.

mod confirm;
mod credentials;
mod http;
mod hub;
mod registry;
pub(crate) mod reply;
pub(crate) mod request;
mod servers;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use ::http::Method;
use tower_sd_core::Result;

use self::{
    confirm::Confirming,
    http::{Answer, Call},
    hub::Sharing,
    reply::{ApplicationReply, ApplicationsReply, InstanceInfo, InstanceReply, Status},
    request::RegistrationRequest,
    servers::Servers,
    wire::Wire,
};
pub(crate) use self::{hub::Ticket, registry::Entries};
use crate::{EurekaConfig, Lookup, error, error::FOLLOW};

/// A client of the servers of one registry. `Clone` is one `Arc`.
#[derive(Clone, Debug)]
pub(crate) struct EurekaClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    wire: Arc<Wire>,
    sharing: Arc<Sharing>,
    confirming: Confirming,
}

/// Whether the server had the entry that a call was about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Known {
    Yes,
    No,
}

impl EurekaClient {
    /// A client of the servers that `config` names. Does not connect yet.
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work.
    pub(crate) fn new(config: EurekaConfig) -> Result<Self> {
        config.validate()?;
        let servers = Servers::new(&config)?;
        let wire = Arc::new(Wire { servers, is_base_known: AtomicBool::new(false), config });
        let sharing = Sharing::new(&wire);
        let confirming = Confirming::new(Arc::clone(&wire));
        Ok(Self(Arc::new(Inner { wire, sharing, confirming })))
    }

    pub(crate) fn config(&self) -> &EurekaConfig {
        &self.0.wire.config
    }

    /// A place among the followers of this client.
    pub(crate) fn follow(&self) -> Ticket {
        self.0.sharing.join()
    }

    /// Reads the entries of an application or of a virtual address from the server in use.
    ///
    /// None of a name that the server does not have: that is its answer when the last one has left.
    ///
    /// # Errors
    ///
    /// No server has answered.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn instances(
        &self,
        lookup: Lookup,
        name: &str,
    ) -> Result<Vec<Arc<InstanceInfo>>> {
        let (index, answer) = self.0.wire.servers.send(&call(lookup, name)).await?;
        self.entries(lookup, index, &answer).await
    }

    /// Reads the same from every server.
    ///
    /// # Errors
    ///
    /// No server has answered; or one has not, the others have nothing, and that does not count yet
    /// (`accepts_absence`).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn instances_of_all(
        &self,
        lookup: Lookup,
        name: &str,
        accepts_absence: bool,
    ) -> Result<Vec<Arc<InstanceInfo>>> {
        let alone = |index| self.instances_of(index, lookup, name);
        self.0.confirming.read(lookup, name, accepts_absence, alone).await
    }

    async fn instances_of(
        &self,
        index: usize,
        lookup: Lookup,
        name: &str,
    ) -> Result<Vec<Arc<InstanceInfo>>> {
        let answer = self.0.wire.servers.send_to(index, &call(lookup, name)).await?;
        self.entries(lookup, index, &answer).await
    }

    /// Reads one entry, not from a cache of the server's.
    pub(crate) async fn entry(
        &self,
        operation: &'static str,
        app: &str,
        id: &str,
    ) -> Result<Option<InstanceInfo>> {
        let (_, answer) =
            self.0.wire.servers.send(&Call::get(operation, &["apps", app, id])).await?;
        match known(&answer)? {
            Known::No => Ok(None),
            Known::Yes => answer.json::<InstanceReply>().map(|reply| Some(reply.instance)),
        }
    }

    /// Registers an entry, whatever the server has.
    pub(crate) async fn register(&self, request: &RegistrationRequest) -> Result<()> {
        let body = serde_json::to_vec(request).map_err(|cause| {
            error::config("register", "the entry cannot be written as JSON").with_source(cause)
        })?;
        let mut call = Call::new("register", Method::POST, &["apps", &request.instance.app]);
        call.body = Some(body.into());
        let (_, answer) = self.0.wire.servers.send(&call).await?;
        answer.succeeded()
    }

    /// Renews the lease of an entry that is as old as `last_dirty_timestamp`, or younger.
    pub(crate) async fn renew(
        &self,
        app: &str,
        id: &str,
        status: Status,
        last_dirty_timestamp: i64,
    ) -> Result<Known> {
        let mut call = Call::new("renew", Method::PUT, &["apps", app, id]);
        call.query = vec![
            ("status", status.as_str().to_owned()),
            ("lastDirtyTimestamp", last_dirty_timestamp.to_string()),
        ];
        known(&self.0.wire.servers.send(&call).await?.1)
    }

    /// Overrides the status of an entry.
    pub(crate) async fn set_status(&self, app: &str, id: &str, status: Status) -> Result<Known> {
        let mut call = Call::new("register", Method::PUT, &["apps", app, id, "status"]);
        call.query = vec![("value", status.as_str().to_owned())];
        known(&self.0.wire.servers.send(&call).await?.1)
    }

    /// Ends an override; the entry has this status from then on.
    pub(crate) async fn end_override(&self, app: &str, id: &str, status: Status) -> Result<Known> {
        let mut call = Call::new("register", Method::DELETE, &["apps", app, id, "status"]);
        call.query = vec![("value", status.as_str().to_owned())];
        known(&self.0.wire.servers.send(&call).await?.1)
    }

    /// Removes an entry.
    pub(crate) async fn deregister(&self, app: &str, id: &str) -> Result<Known> {
        let call = Call::new("deregister", Method::DELETE, &["apps", app, id]);
        known(&self.0.wire.servers.send(&call).await?.1)
    }

    async fn entries(
        &self,
        lookup: Lookup,
        index: usize,
        answer: &Answer,
    ) -> Result<Vec<Arc<InstanceInfo>>> {
        if known(answer)? == Known::No {
            self.check_base(index).await?;
            return Ok(Vec::new());
        }
        self.0.wire.is_base_known.store(true, Relaxed);
        if lookup == Lookup::App {
            return answer.json::<ApplicationReply>().map(|reply| reply.application.instance);
        }
        let applications = answer.json::<ApplicationsReply>()?.applications.application;
        Ok(applications.into_iter().flat_map(|application| application.instance).collect())
    }

    /// With a wrong base path, every application is unknown. So the first answer of that
    /// kind is compared with that for the recent changes, which every server has.
    async fn check_base(&self, index: usize) -> Result<()> {
        if self.0.wire.is_base_known.load(Relaxed) {
            return Ok(());
        }
        let answer =
            self.0.wire.servers.probe(index, &Call::get(FOLLOW, &["apps", "delta"])).await?;
        if answer.is_success() {
            self.0.wire.is_base_known.store(true, Relaxed);
            return Ok(());
        }
        let error = answer.refused();
        // A refusal that is transient: this server offers no changes.
        if error.is_transient() { Ok(()) } else { Err(error) }
    }
}

fn call(lookup: Lookup, name: &str) -> Call<'_> {
    let kind = match lookup {
        Lookup::App => "apps",
        Lookup::Vip => "vips",
        Lookup::SecureVip => "svips",
    };
    Call::get(FOLLOW, &[kind, name])
}

fn known(answer: &Answer) -> Result<Known> {
    match answer.status {
        404 => Ok(Known::No),
        _ => answer.succeeded().map(|()| Known::Yes),
    }
}
