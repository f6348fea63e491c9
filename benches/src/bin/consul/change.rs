//! One service, beside a bare loop of blocking queries that follows the same one.
//!
//! Both see the same additions, 300 ms apart, so whatever disturbs the machine disturbs both. The
//! bare loop is what a user would write: reqwest, the index, JSON into values; it guards against
//! nothing.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tower_sd_balance::Instancer;
use tower_sd_benches::measure::median;
use tower_sd_consul::{Consul, ConsulConfig};
use tower_sd_testkit::{real, servers::ServerBinary};

use crate::{BOUND, Error, Result, put};

/// The median delays in seconds: ours, the bare loop's.
pub async fn additions(binary: ServerBinary, n: usize) -> Result<(f64, f64)> {
    let agent = real::Consul::dev(binary).await?;
    let client = Consul::new(ConsulConfig::new(agent.url()))?;
    let instancer = client.instancer("bench");
    let mut ours = instancer.subscribe();
    ours.ready(BOUND).await?;
    let (sender, mut bare) = watch::channel(0);
    let bare_loop = tokio::spawn(bare_loop(agent.url(), sender));
    let (mut our_times, mut bare_times) = (Vec::new(), Vec::new());
    for k in 1..=n {
        sleep(Duration::from_millis(300)).await;
        let started = Instant::now();
        let see_ours = async {
            while ours.snapshot().instances().len() < k {
                ours.changed().await?;
            }
            Ok::<_, Error>(started.elapsed())
        };
        let see_bare = async {
            bare.wait_for(|n| *n >= k).await?;
            Ok::<_, Error>(started.elapsed())
        };
        let seen = async { tokio::try_join!(register(agent.address(), k), see_ours, see_bare) };
        let ((), ours_took, bare_took) = timeout(BOUND, seen).await??;
        our_times.push(ours_took.as_secs_f64());
        bare_times.push(bare_took.as_secs_f64());
    }
    bare_loop.abort();
    Ok((median(our_times), median(bare_times)))
}

async fn register(agent: SocketAddr, k: usize) -> Result<()> {
    let body = format!(
        r#"{{"Name":"bench","ID":"b{k}","Address":"10.0.{}.{}","Port":80}}"#,
        k / 200,
        k % 200 + 1
    );
    put(agent, "/v1/agent/service/register", &body).await
}

async fn bare_loop(url: String, seen: watch::Sender<usize>) -> Result<()> {
    let provider = rustls::crypto::ring::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build()?;
    let mut index = "1".to_owned();
    loop {
        let target = format!("{url}/v1/health/service/bench?wait=55s&index={index}");
        let response = client.get(target).send().await?;
        if let Some(found) = response.headers().get("x-consul-index") {
            index = found.to_str()?.to_owned();
        }
        let entries: Vec<serde_json::Value> = serde_json::from_slice(&response.bytes().await?)?;
        seen.send_replace(entries.len());
    }
}
