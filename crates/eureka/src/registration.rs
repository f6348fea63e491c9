//! Registers with a server, and keeps the lease alive.

mod announcer;
mod clock;
mod options;
#[cfg(test)]
mod tests;

use tower_sd_core::{Registration, Result, duration};

pub use self::options::RegistrationOptions;

use self::announcer::EurekaAnnouncer;
use crate::{
    BACKEND,
    client::{EurekaClient, request::LeaseRequest},
    mapping,
};

/// Creates the writing half of a registration, or refuses one that no server would accept.
pub(crate) fn announcer(
    client: &EurekaClient,
    options: &RegistrationOptions,
    registration: &Registration,
) -> Result<EurekaAnnouncer> {
    let (service, instance) = (registration.service(), registration.instance());
    let ttl = registration.lease_ttl();
    duration::check_ttl(BACKEND, "register", ttl)
        .map_err(|error| error.with_instance(instance.id().clone()))?;
    let duration = ttl.as_secs();
    let lease = LeaseRequest {
        renewal_interval_in_secs: (duration / 3).max(1),
        duration_in_secs: duration,
    };
    mapping::registration(service, instance, NO_INCARNATION, lease)?;
    let (app, id) = (mapping::app_name(service), mapping::instance_id(service, instance));
    Ok(EurekaAnnouncer::new(client.clone(), options.clone(), lease, app, id))
}

/// For a check of the limits, which counts it.
const NO_INCARNATION: &str = "";
