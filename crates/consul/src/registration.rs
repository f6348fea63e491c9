//! Registers with an agent, and keeps the TTL check alive.

mod announcer;
mod check;
mod leftovers;
mod options;

use tower_sd_core::{Registration, Result};

use self::{announcer::ConsulAnnouncer, options::Settings};
pub use self::{check::Check, options::RegistrationOptions};
use crate::{client::ConsulClient, mapping};

/// Creates the writing half of a registration, or refuses one that no agent would accept.
pub(crate) fn announcer(
    client: &ConsulClient,
    options: &RegistrationOptions,
    registration: &Registration,
) -> Result<ConsulAnnouncer> {
    let (service, instance) = (registration.service(), registration.instance());
    mapping::registration(service, instance, NO_INCARNATION)?;
    let ttl = (!options.without_ttl).then(|| registration.lease_ttl());
    let settings = Settings { ttl, options: options.clone() };
    settings.validate().map_err(|error| error.with_instance(instance.id().clone()))?;
    let service_id = mapping::service_id(service, instance.id().as_str());
    Ok(ConsulAnnouncer::new(client.clone(), settings, service_id))
}

/// For a check of the limits, which counts it.
const NO_INCARNATION: &str = "";
/// A registration takes several requests, each of them this long at most.
pub(crate) const CALL_TIMEOUT: std::time::Duration = options::CALL_TIMEOUT;
