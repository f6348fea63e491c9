//! Real signals at each of many moments of a life.
//!
//! One test, because signals reach the whole process.
#![cfg(unix)]

use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tower_sd_core::{BoxError, MemoryRegistry};
use tower_sd_lifecycle::{Lifecycle, Listener};

/// Twice each, from the start to the end of the stop: 50 lives on a registry that is slow.
#[tokio::test]
async fn no_entry_is_left_at_any_moment_of_two_signals() {
    // From here on no signal ends the process.
    let _signals = signal(SignalKind::terminate()).expect("a runtime");
    let mut n_registered = 0;
    for moment in 0..50 {
        let registry = MemoryRegistry::new();
        registry.delay(Duration::from_millis(30));
        let warm = || async {
            sleep(Duration::from_millis(10)).await;
            Ok::<_, BoxError>(())
        };
        let lifecycle = Lifecycle::new()
            .register(registry.clone(), "a")
            .propagation(Duration::from_millis(20))
            .before_ready(warm);
        let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
        let life = lifecycle.run(listener, |_listener, drain| async move {
            drain.await;
            Ok::<_, BoxError>(())
        });
        let signals = async {
            let terminate = || kill_process(getpid(), Signal::TERM).expect("our own process");
            sleep(Duration::from_millis(moment * 2)).await;
            n_registered += registry.entries("a").len();
            terminate();
            sleep(Duration::from_millis(moment % 7 * 10)).await;
            terminate();
        };
        let both = async { tokio::join!(life, signals) };
        let (ended, ()) = timeout(Duration::from_secs(60), both).await.expect("it ends");
        let report = ended.expect("no failure");
        assert!(report.to_string().starts_with("stopped by SIGTERM"), "{moment}: {report}");
        assert_eq!(registry.entries("a").len(), 0, "{moment}: {report}");
        sleep(Duration::from_millis(50)).await;
        assert_eq!(registry.entries("a").len(), 0, "{moment}, later: {report}");
    }
    assert!(n_registered > 0, "some were registered before their signal");
}
