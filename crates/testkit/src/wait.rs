//! Waits until a subscription shows something.
//!
//! A test that fails shows what it has instead.

use std::time::Duration;

use tower_sd_core::{Snapshot, Subscription};

use crate::stall::within;

/// Waits until `subscription` shows exactly these ids, in the order of ids.
///
/// # Panics
///
/// It does not within `bound`, or its loop ends.
pub async fn shows(subscription: &mut Subscription, ids: &[&str], bound: Duration) -> Snapshot {
    let what = format!("exactly {ids:?}");
    shows_that(subscription, &what, bound, |snapshot| ids_of(snapshot) == ids).await
}

/// Waits until `subscription` shows a snapshot that is `wanted`.
///
/// Returns it; `what` names it when it does not come.
///
/// Every snapshot that the subscription has is offered, the present one first; like any reader, a
/// slow one may miss some.
///
/// ```
/// use std::time::Duration;
///
/// use tower_sd_core::{FixedInstancer, Instance, Instancer};
/// use tower_sd_testkit::wait::shows_that;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let instancer = FixedInstancer::new([Instance::new("127.0.0.1", 8081)]);
/// let mut subscription = instancer.subscribe();
/// let bound = Duration::from_secs(1);
/// let one = shows_that(&mut subscription, "one", bound, |it| it.instances().len() == 1).await;
/// assert_eq!(one.instances()[0].port(), 8081);
/// # }
/// ```
///
/// # Panics
///
/// It does not within `bound`, or its loop ends.
pub async fn shows_that(
    subscription: &mut Subscription,
    what: &str,
    bound: Duration,
    wanted: impl Fn(&Snapshot) -> bool + Send + Sync,
) -> Snapshot {
    let wait = async {
        let mut snapshot = subscription.snapshot();
        while !wanted(&snapshot) {
            snapshot = subscription.changed().await.expect("the loop lives");
        }
        snapshot
    };
    let seen = within(bound, wait).await;
    seen.unwrap_or_else(|| {
        let last = subscription.snapshot();
        panic!("not seen within {bound:?}: {what}; last seen: {last:#?}")
    })
}

/// What is `wanted` of [`shows_that`]: `n` instances, and fresh.
pub fn fresh_with(n: usize) -> impl Fn(&Snapshot) -> bool + Send + Sync {
    move |it| it.freshness().is_fresh() && it.instances().len() == n
}

pub(crate) fn ids_of(snapshot: &Snapshot) -> Vec<&str> {
    let ids = snapshot.instances().iter();
    ids.map(|instance| instance.id().as_str()).collect()
}
