//! A lease for a caller without a request.

use tokio::time::timeout;

use super::{
    inner::Inner,
    request::{Purpose, Request},
    shards::OutOfRange,
};
use crate::{
    NoInstances, NoInstancesReason,
    endpointer::{InFlight, Tier},
};

/// Any endpoint, the worse ones when no better one is left: its readiness is not polled.
pub(super) async fn obtain_any<S: Clone + Send + Sync + 'static>(
    inner: &Inner<S>,
) -> Result<(S, InFlight), NoInstances> {
    let mut versions = inner.shared.versions();
    let found = async {
        loop {
            versions.borrow_and_update();
            let first = inner.shards.pick(None).filter(|(_, stats, _)| stats.is_ready());
            if let Some((service, stats, trace)) = first {
                let tier = trace.tier();
                return Ok((service, stats, tier, trace));
            }
            for tier in Tier::ALL {
                let picked = inner
                    .shards
                    .pick_in(tier, &Request { purpose: Purpose::Lease, ..Request::ANY })
                    .map_err(|OutOfRange| NoInstances::new(NoInstancesReason::OutOfRange, None))?;
                if let Some((service, stats, trace)) = picked {
                    return Ok((service, stats, tier, trace));
                }
            }
            let none = inner.shared.why_none();
            if none.is_known() {
                return Err(none);
            }
            // The sender is in `inner`.
            let _changed = versions.changed().await;
        }
    };
    let (service, stats, tier, trace) = match timeout(inner.wait, found).await {
        Ok(found) => found?,
        Err(_elapsed) => return Err(inner.shared.why_none().waited()),
    };
    Ok((service, inner.begin(stats, None, tier, trace)))
}
