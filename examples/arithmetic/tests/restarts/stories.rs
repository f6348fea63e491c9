use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::sleep;
use tower_sd::retry::{RetryDecision, RetryPolicy};

use crate::{
    client::{Client, Protocol},
    fleet::{Fleet, build},
    load::Load,
    registry::Registry,
};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Registries {
    Consul,
    Etcd,
    Eureka,
    ZooKeeper,
}

/// What happens under load.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Story {
    /// SIGTERM one after the other; the default policy, which repeats no POST that may have been
    /// received.
    RollingRestart,
    /// SIGKILL; one retry, and leave to use it for what was in flight.
    Kill,
    /// A rolling restart; between two servers the registry is killed and restarted. The default
    /// policy.
    RegistryKilled,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    Short,
    Full,
}

/// Runs a scenario until enough requests were offered, and fails when one of them has.
pub(crate) async fn tell(story: Story, registries: Registries, protocol: Protocol, size: Size) {
    let registry = match registries {
        Registries::Consul => Registry::consul().await,
        Registries::Etcd => Registry::etcd().await,
        Registries::Eureka => Registry::eureka().await,
        Registries::ZooKeeper => Registry::zookeeper().await,
    };
    let mut fleet = Fleet::start(&registry.url(), protocol).await;
    let retries = Arc::<AtomicU64>::default();
    let instancer = registry.instancer(protocol.service());
    let client = Client::new(protocol, &instancer, policy(story, Arc::clone(&retries))).await;
    let (rate, enough) = size.load();
    let load = Load::start(rate, move |n| client.clone().add(n));
    load.until(enough / 10).await;
    for round in 0.. {
        match story {
            Story::RollingRestart => fleet.restart_all().await,
            Story::Kill => {
                let n = round % fleet.len();
                fleet.kill(n);
                sleep(Duration::from_secs(1)).await;
                fleet.start_again(n).await;
                // The story is of one that is killed: let the clients find it again before the
                // next.
                sleep(Duration::from_secs(2)).await;
            }
            Story::RegistryKilled => {
                fleet.restart(0).await;
                registry.kill();
                sleep(Duration::from_secs(1)).await;
                registry.restart().await.expect("it starts again");
                fleet.restart(1).await;
                fleet.restart(2).await;
            }
        }
        if load.offered() >= enough {
            break;
        }
    }
    let sum = load.stop().await;
    let retries = retries.load(Relaxed);
    // Not by println, which the test runner would hide.
    let line = format!(
        "{story:?} on {registries:?} over {protocol:?}: {sum}, {retries} retries; {}",
        build()
    );
    writeln!(io::stdout(), "{line}").expect("stdout");
    let first: Vec<_> = sum.failures.iter().take(5).collect();
    assert!(first.is_empty(), "{sum}: {first:#?}");
    assert!(sum.offered >= enough);
}

/// The default, or one retry with leave to use it.
fn policy(story: Story, retries: Arc<AtomicU64>) -> RetryPolicy {
    let policy = match story {
        Story::RollingRestart | Story::RegistryKilled => RetryPolicy::new(),
        Story::Kill => RetryPolicy::new().max_attempts(2).idempotent(),
    };
    policy.on_failure(move |_, _| {
        retries.fetch_add(1, Relaxed);
        RetryDecision::Retry
    })
}

impl Size {
    /// Requests a second, and how many.
    fn load(self) -> (u32, u64) {
        match self {
            Self::Short => (200, 600),
            Self::Full => (1000, 50_000),
        }
    }
}
