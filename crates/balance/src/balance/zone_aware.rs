use std::sync::Arc;

use super::{Balancer, Members, Picker, Prioritized};

/// Members of the client's own zone, while enough of them are usable.
///
/// They get all requests while 71 % of them are usable; below that the missing share, and no more,
/// goes to the other zones. It is a [`Prioritized`] by zone, with Envoy's priority load. A member
/// without a zone is in another one. A client without members in its own zone uses all others.
///
/// The instances have to be spread over the zones as the clients are: it does not know the other
/// clients, and a zone of many clients and one instance gives that one all its requests.
///
/// ```
/// use tower_sd::balance::{BalanceLayer, LeastLoaded, ZoneAware};
///
/// let layer = BalanceLayer::new(ZoneAware::new("eu-1a", LeastLoaded::new()));
/// # let _ = layer;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ZoneAware(Prioritized);

impl ZoneAware {
    /// Prefers `zone`; `inner` chooses among the members of it, and among all others.
    pub fn new(zone: impl Into<String>, inner: impl Balancer) -> Self {
        let zone = zone.into();
        Self(Prioritized::by(move |it| u32::from(it.zone() != Some(zone.as_str())), inner))
    }

    /// Sets the load that the own zone takes over for lost members.
    ///
    /// In percent of its own. Defaults to 140, Envoy's overprovisioning factor of 1.4.
    pub fn overprovisioning(self, percent: u32) -> Self {
        Self(self.0.overprovisioning(percent))
    }

    /// Sets the share of usable members of all zones below which zones do not count.
    ///
    /// In percent; 0 is never. Defaults to 50, see [`Prioritized::panic_threshold`].
    pub fn panic_threshold(self, percent: u8) -> Self {
        Self(self.0.panic_threshold(percent))
    }
}

impl Balancer for ZoneAware {
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker> {
        self.0.picker(members)
    }

    fn inner(&self) -> Option<&dyn Balancer> {
        Some(&self.0)
    }
}
