//! Real signals at each of many moments of a life.
//!
//! One test at a time, because signals reach the whole process.
#![cfg(unix)]

mod traffic;

use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower_sd_core::{BoxError, MemoryRegistry};
use tower_sd_lifecycle::{Lifecycle, Listener};

static ALONE: Mutex<()> = Mutex::const_new(());

/// Twice each, from the start to the end of the stop: 50 lives on a registry that is slow.
#[tokio::test]
async fn no_entry_is_left_at_any_moment_of_two_signals() {
    let _alone = ALONE.lock().await;
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

/// A supervisor's only one comes while the program drains by an order of its own.
#[tokio::test]
async fn first_signal_after_an_order_of_the_program_changes_nothing() {
    let _alone = ALONE.lock().await;
    let _signals = signal(SignalKind::terminate()).expect("a runtime");
    let terminate = || kill_process(getpid(), Signal::TERM).expect("our own process");
    let stop = CancellationToken::new();
    let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let lifecycle = Lifecycle::new().shutdown_on(stop.clone());
    let mut life = JoinSet::new();
    life.spawn(lifecycle.run(listener, |_listener, _drain| async {
        std::future::pending::<Result<(), BoxError>>().await
    }));
    sleep(Duration::from_millis(100)).await;
    stop.cancel();
    for _ in 0..2 {
        // Later than a signal that is taken for the same one.
        sleep(Duration::from_millis(1_200)).await;
        assert!(life.try_join_next().is_none(), "it drains");
        terminate();
    }
    let ended = timeout(Duration::from_secs(10), life.join_next()).await.expect("the second one");
    let report = ended.expect("it runs").expect("no panic").expect("no failure");
    assert!(report.to_string().contains("drain skipped (second order to stop)"), "{report}");
}
