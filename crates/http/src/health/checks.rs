use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use http::{Request, Uri, header::HOST, uri::Parts};
use http_body_util::{BodyExt, Empty, Limited};
use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower_sd_balance::{ActiveCheck, BoxError, Instance, Shutdown};
use tower_sd_core::chain;
use tower_service::Service;

use super::{HealthPolicy, shared::Checked};
use crate::HttpEndpoint;

/// Checks one endpoint until that is gone. Of those of one instance that clones of one policy
/// check, one does it for all.
pub(crate) async fn check(
    endpoint: HttpEndpoint<Empty<Bytes>>,
    (policy, instance): (HealthPolicy, Instance),
    health: ActiveCheck,
    (stop, gone): (Shutdown, CancellationToken),
) {
    let place = policy.shared.place(&instance);
    let checked = async {
        // Never closed.
        let _turn = place.checked.turn.acquire().await;
        run(endpoint, &policy, &place.checked).await;
    };
    select! {
        biased;
        () = stop.requested() => {}
        () = gone.cancelled() => {}
        () = place.checked.report(&health) => {}
        () = checked => {}
    }
}

async fn run(mut endpoint: HttpEndpoint<Empty<Bytes>>, policy: &HealthPolicy, checked: &Checked) {
    let (mut n_failed, mut n_passed) = (0_u32, 0_u32);
    // The clients of a fleet do not check an instance in one instant.
    sleep(policy.interval.mul_f64(fastrand::f64())).await;
    loop {
        let result = match timeout(policy.timeout, once(&mut endpoint, policy)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(format!("no response within {:?}", policy.timeout).into()),
        };
        match result {
            Ok(()) => {
                (n_failed, n_passed) = (0, n_passed.saturating_add(1));
                if n_passed >= policy.successes {
                    checked.decision.send_replace(Some(Ok(())));
                }
            }
            Err(error) => {
                (n_failed, n_passed) = (n_failed.saturating_add(1), 0);
                if n_failed >= policy.failures {
                    checked.decision.send_replace(Some(Err(chain(&*error).to_string())));
                }
            }
        }
        sleep(policy.interval.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
    }
}

/// One check. Whatever the body is, the head decides.
async fn once(
    endpoint: &mut HttpEndpoint<Empty<Bytes>>,
    policy: &HealthPolicy,
) -> Result<(), BoxError> {
    poll_fn(|cx| endpoint.poll_ready(cx)).await?;
    let mut request = Request::new(Empty::new());
    let mut parts = Parts::default();
    parts.path_and_query = Some(policy.path.clone());
    *request.uri_mut() = Uri::from_parts(parts)?;
    request.headers_mut().extend(policy.host.clone().map(|host| (HOST, host)));
    let response = endpoint.call(request).await?;
    let status = response.status();
    // Read to its end, the connection serves the next check, if it is kept for so long.
    let rest = Limited::new(response.into_body(), MAX_BODY).collect();
    drop(timeout(DRAIN, rest).await);
    match status.is_success() {
        true => Ok(()),
        false => Err(format!("health check: status {status}").into()),
    }
}

/// More than any page of health has.
const MAX_BODY: usize = 64 * 1024;
const DRAIN: Duration = Duration::from_millis(100);
