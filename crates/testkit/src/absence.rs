//! Clients whose registry is away, or behind a proxy that cuts their connections.

use std::{net::SocketAddr, time::Duration};

use tokio::time::{Instant, sleep};
use tower_sd_core::{Instance, Instancer, Registration, Registry};

use crate::{
    proxy::{Fault, Proxy},
    wait::shows_that,
};

/// Starts 200 servers while the registry resets connections.
///
/// Each has a client of its own. After a minute each makes one connection in 5 s at most. When the
/// registry comes back, all are registered within 30 s.
///
/// # Panics
///
/// They make more, or are not registered in time.
pub async fn servers_without_a_registry_are_patient(
    registry: SocketAddr,
    connect: impl Fn(SocketAddr) -> Registry,
) {
    let proxy = Proxy::start(registry).await.expect("loopback");
    proxy.set(Fault::Reset).await;
    let mut handles = Vec::new();
    for port in 1..=N_SERVERS {
        let registration = Registration::new("patient", Instance::new("127.0.0.1", port));
        let registering = connect(proxy.address());
        let handle = registering.register(registration.retry_in_background()).await;
        handles.push((handle.expect("in the background"), registering));
    }
    sleep(Duration::from_secs(60)).await;
    let before = proxy.n_accepted();
    sleep(MEASURED).await;
    let made = u32::try_from(proxy.n_accepted() - before).expect("fits");
    let rate = f64::from(made) / MEASURED.as_secs_f64() / f64::from(N_SERVERS);
    assert!(rate <= 0.2, "{rate} connections a second each");
    proxy.set(Fault::None).await;
    let mut subscription = connect(registry).instancer("patient").expect("a name").subscribe();
    let all = |snapshot: &tower_sd_core::Snapshot| snapshot.instances().len() == 200;
    shows_that(&mut subscription, "all", Duration::from_secs(30), all).await;
}

/// Follows a service through a proxy that resets all connections every 50 s.
///
/// After 5 min, the set is stale for 5 % of the time at most.
///
/// # Panics
///
/// It is stale for longer, or empty.
pub async fn cut_connections_blind_rarely(
    registry: SocketAddr,
    connect: impl Fn(SocketAddr) -> Registry,
) {
    let proxy = Proxy::start(registry).await.expect("loopback");
    let registrar = connect(registry);
    let registration = Registration::new("cut", Instance::new("127.0.0.1", 80));
    let _handle = registrar.register(registration).await.expect("registers");
    let follower = connect(proxy.address()).instancer("cut").expect("a name");
    let mut subscription = follower.subscribe();
    let one = |snapshot: &tower_sd_core::Snapshot| snapshot.instances().len() == 1;
    shows_that(&mut subscription, "it", Duration::from_secs(15), one).await;
    let (start, mut stale) = (Instant::now(), Duration::ZERO);
    for _ in 0..6 {
        let until = Instant::now() + Duration::from_secs(50);
        while Instant::now() < until {
            let before = Instant::now();
            sleep(Duration::from_millis(20)).await;
            let snapshot = subscription.snapshot();
            assert_eq!(snapshot.instances().len(), 1, "{snapshot:?}");
            if !snapshot.freshness().is_fresh() {
                stale += before.elapsed();
            }
        }
        proxy.set(Fault::Reset).await;
        proxy.set(Fault::None).await;
    }
    let share = stale.as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(share <= 0.05, "stale for {share} of the time");
}

const N_SERVERS: u16 = 200;
const MEASURED: Duration = Duration::from_secs(30);
