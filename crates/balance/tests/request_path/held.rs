//! Held endpoints, whose failures may be those of the client.

use std::{
    future::{Ready, ready},
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt};
use tower_sd_balance::{
    BalanceLayer, BoxError, EndpointState, Endpointer, Instance, NotServing, RoundRobin,
};

use crate::support::{Registry, settle};

/// What the readiness of each endpoint reports now.
#[derive(Clone, Default)]
struct Moody(Arc<AtomicUsize>);

const SERVES: usize = 0;
const NO_DESCRIPTOR: usize = 1;
const NO_ROUTE: usize = 2;
const NOT_SERVING: usize = 3;
const REFUSED: usize = 4;
const TIMED_OUT: usize = 5;

impl Service<u32> for Moody {
    type Response = ();
    type Error = BoxError;
    type Future = Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(match self.0.load(SeqCst) {
            // EMFILE.
            NO_DESCRIPTOR => Err(io::Error::from_raw_os_error(24).into()),
            NO_ROUTE => Err(io::Error::from(io::ErrorKind::NetworkUnreachable).into()),
            NOT_SERVING => Err(NotServing.into()),
            REFUSED => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
            TIMED_OUT => Err("not connected within 300ms".into()),
            _ => Ok(()),
        })
    }

    fn call(&mut self, _: u32) -> Self::Future {
        ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn held_one_stays_unless_it_refuses_itself() {
    for (mood, n_left, n_made) in [
        (NO_DESCRIPTOR, 2, 4),
        (NO_ROUTE, 2, 4),
        (NOT_SERVING, 2, 2),
        (TIMED_OUT, 2, 4),
        (REFUSED, 0, 2),
    ] {
        let mut registry = Registry::guarded(&["a", "b"]);
        let (moody, made) = (Moody::default(), Arc::<AtomicUsize>::default());
        let (service, counter) = (moody.clone(), Arc::clone(&made));
        let endpointer = Endpointer::with(&registry, move |_: Instance| {
            counter.fetch_add(1, SeqCst);
            ready(Ok(service.clone()))
        });
        endpointer.ready(Duration::from_secs(1)).await.unwrap();
        let client = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
        registry.set(&[]).await;
        client.clone().oneshot(0).await.unwrap();
        moody.0.store(mood, SeqCst);
        client.clone().oneshot(0).await.unwrap_err();
        sleep(Duration::from_secs(2)).await;
        let report = endpointer.report().endpoints;
        assert_eq!(report.len(), n_left, "{mood}");
        assert!(report.iter().all(|endpoint| endpoint.state == EndpointState::Down), "{report:?}");
        assert!(made.load(SeqCst) >= n_made && (mood != NOT_SERVING || made.load(SeqCst) == 2));
        moody.0.store(SERVES, SeqCst);
        sleep(Duration::from_secs(10)).await;
        settle().await;
        let served = client.oneshot(0).await;
        assert_eq!(served.is_ok(), n_left > 0, "{mood}: the registry lists it no more");
    }
}
