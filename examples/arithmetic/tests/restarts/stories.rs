use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use tokio::time::sleep;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd::{
    Balance, BalanceLayer, BoxError, Endpointer, Next, Retry, RetryLayer, RetryPolicy, RoundRobin,
};
use tower_sd_http::{HttpEndpoint, HttpFactory, HttpReplay, ToBody};

use crate::{
    fleet::{Fleet, build},
    load::Load,
    registry::Registry,
};

type Endpoint = HttpEndpoint<Empty<Bytes>>;
type Client = Retry<Balance<Endpoint, ToBody>, HttpReplay>;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Registries {
    Consul,
    Etcd,
}

/// What happens under load.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Story {
    /// SIGTERM one after the other; the default policy, which repeats no POST that may have been received.
    RollingRestart,
    /// SIGKILL; one retry, and leave to use it for what was in flight.
    Kill,
    /// A rolling restart; between two servers the registry is killed and restarted. The default policy.
    RegistryKilled,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    Short,
    Full,
}

/// Tells a story until enough requests were offered, and fails when one of them has.
pub(crate) async fn tell(story: Story, registries: Registries, size: Size) {
    let registry = match registries {
        Registries::Consul => Registry::consul().await,
        Registries::Etcd => Registry::etcd().await,
    };
    let mut fleet = Fleet::start(&registry.url()).await;
    let endpointer = Endpointer::new(&*registry.instancer(), HttpFactory::new());
    endpointer.ready(Duration::from_secs(10)).await.expect("the servers are there");
    let retries = Arc::<AtomicU64>::default();
    let client = client(&endpointer, story, Arc::clone(&retries));
    let (rate, enough) = size.load();
    let load = Load::start(rate, move |n| add(client.clone(), n));
    load.until(enough / 10).await;
    for round in 0.. {
        match story {
            Story::RollingRestart => fleet.restart_all().await,
            Story::Kill => {
                let n = round % fleet.len();
                fleet.kill(n);
                sleep(Duration::from_secs(1)).await;
                fleet.start_again(n).await;
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
    let line = format!("{story:?} on {registries:?}: {sum}, {retries} retries; {}", build());
    writeln!(io::stdout(), "{line}").expect("stdout");
    let first: Vec<_> = sum.failures.iter().take(5).collect();
    assert!(first.is_empty(), "{sum}: {first:#?}");
    assert!(sum.offered >= enough);
}

fn client(
    endpointer: &Endpointer<Endpoint, ToBody>,
    story: Story,
    retries: Arc<AtomicU64>,
) -> Client {
    let policy = match story {
        Story::RollingRestart | Story::RegistryKilled => RetryPolicy::new(),
        Story::Kill => RetryPolicy::new().attempts(2).idempotent(),
    };
    let policy = policy.on_failure(move |_, _| {
        retries.fetch_add(1, Relaxed);
        Next::Repeat
    });
    ServiceBuilder::new()
        .layer(RetryLayer::new(policy.replay_with(HttpReplay::new())))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(endpointer.clone())
}

async fn add(mut client: Client, n: u64) -> Result<(), BoxError> {
    let uri = format!("http://arithmetic/calculate/Add/{n}/1");
    let request = Request::post(uri).body(Empty::new())?;
    let answer = client.ready().await?.call(request).await?;
    let body = answer.into_body().collect().await?.to_bytes();
    let expected = format!(r#"{{"result":{},"error":null}}"#, n + 1);
    if body == expected { Ok(()) } else { Err(format!("{body:?}").into()) }
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
