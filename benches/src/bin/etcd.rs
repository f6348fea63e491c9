//! How soon an addition is seen.
//!
//! From a put to a snapshot of ours, and to the event of a bare etcd-client watch on the same
//! server.
//!
//! In turn, each on a prefix of its own, additions at least 300 ms apart. Needs a real etcd, which
//! `cargo xtask bench etcd` provides. Argument: the number of additions, 200 if not given.

use std::{error::Error, time::Duration};

use etcd_client::{Client, WatchOptions};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{Instant, sleep, sleep_until},
};
use tower_sd_balance::Instancer;
use tower_sd_benches::{measure::median, results::Results};
use tower_sd_etcd::{Etcd, EtcdConfig};
use tower_sd_testkit::{real, servers::required};

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Box<dyn Error>> {
    let n_additions = std::env::args().nth(1).map_or(Ok(200), |n| n.parse())?;
    let binary = required("etcd");
    println!("using etcd v{}; {n_additions} additions each, 300 ms apart", binary.version);
    let server = real::Etcd::start(real::EtcdConfig::new(binary)).await?;
    let url = server.url();
    let mut writer = Client::connect([&url], None).await?;
    let mut contestants = [("ours", ours(&url).await?), ("bare", bare(&url).await?)];
    let mut times = [Vec::new(), Vec::new()];
    for n in 0..=n_additions {
        for ((name, seen), times) in contestants.iter_mut().zip(&mut times) {
            let next = Instant::now() + PAUSE;
            let value = format!(r#"{{"Addr":"10.0.{}.{}:80"}}"#, n / 250, n % 250 + 1);
            let put = Instant::now();
            writer.put(format!("tower-sd/{name}/{n:05}"), value, None).await?;
            let seen = seen.recv().await.ok_or("the watch is over")?;
            // The first one pays for what happens once.
            if n > 0 {
                times.push((seen - put).as_secs_f64() * 1e9);
            }
            sleep_until(next).await;
        }
    }
    let [ours, bare] = times.map(median);
    println!("median: ours {:.3} ms, bare watch {:.3} ms", ours / 1e6, bare / 1e6);
    let mut results = Results::new("etcd")?;
    results.add("put_to_snapshot", (n_additions, 1), ours, &[("bare_watch", bare)])?;
    if ours > bare * 1.2 + 0.2e6 {
        return Err("ours is above 1.2 times the bare watch's median plus 0.2 ms".into());
    }
    Ok(())
}

/// When each snapshot with one more instance came.
async fn ours(url: &str) -> Result<UnboundedReceiver<Instant>, Box<dyn Error>> {
    let client = Etcd::new(EtcdConfig::new([url]))?;
    let instancer = client.instancer("ours");
    let mut subscription = instancer.subscribe();
    let snapshot = subscription.ready(READY).await?;
    let mut n_seen = snapshot.instances().len();
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok(snapshot) = subscription.changed().await {
            let now = Instant::now();
            if snapshot.instances().len() > n_seen {
                n_seen = snapshot.instances().len();
                sender.send(now).ok();
            }
        }
    });
    Ok(receiver)
}

/// When each event came.
async fn bare(url: &str) -> Result<UnboundedReceiver<Instant>, Box<dyn Error>> {
    let mut client = Client::connect([url], None).await?;
    let options = WatchOptions::new().with_prefix();
    let mut watch = client.watch("tower-sd/bare/", Some(options)).await?;
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(response)) = watch.message().await {
            let now = Instant::now();
            for _event in response.events() {
                sender.send(now).ok();
            }
        }
    });
    sleep(PAUSE).await;
    Ok(receiver)
}

/// Between two additions; each contestant's own are twice as far apart.
const PAUSE: Duration = Duration::from_millis(150);
const READY: Duration = Duration::from_secs(5);
