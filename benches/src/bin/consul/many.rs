//! A thousand services of one agent, followed within 64 connections.
//!
//! Measured is the time from a change to the snapshot that shows it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use tokio::time::{sleep, timeout};
use tower_sd_balance::{Instancer, Snapshot, Subscription};
use tower_sd_consul::{Consul, ConsulConfig};
use tower_sd_testkit::{real, servers::ServerBinary, usage::connections_to};

use crate::{BOUND, Result, put};

/// What was seen of the changes.
#[derive(Debug)]
pub struct Seen {
    /// Sorted.
    pub delays: Vec<Duration>,
    pub max_connections: usize,
}

/// Makes `n` changes of `n` services, five a second.
///
/// In turn a new port, which only a read of all services finds, and a
/// check that fails.
pub async fn changes(binary: ServerBinary, n: usize) -> Result<Seen> {
    let agent = real::Consul::dev(binary).await?;
    let address = agent.address();
    let register = |service| register(address, service, 80);
    stream::iter(0..SERVICES).map(register).buffer_unordered(16).try_collect::<()>().await?;
    let client = Consul::new(ConsulConfig::new(agent.url()))?;
    let follow = |service| client.instancer(name(service));
    let instancers: Vec<_> = (0..SERVICES).map(follow).collect();
    let mut followed: Vec<Subscription> = instancers.iter().map(Instancer::subscribe).collect();
    for subscription in &mut followed {
        sees(subscription, |snapshot| !snapshot.instances().is_empty()).await?;
    }
    sleep(Duration::from_secs(2)).await;
    let changes = (0..n).map(|k| {
        let service = k * 617 % SERVICES;
        let mut subscription = followed[service].clone();
        async move {
            sleep(Duration::from_millis(200) * u32::try_from(k)?).await;
            let started = Instant::now();
            if k % 2 == 0 {
                self::register(address, service, 81).await?;
                sees(&mut subscription, |snapshot| snapshot.instances()[0].port() == 81).await?;
            } else {
                put(address, &format!("/v1/agent/check/fail/{}", name(service)), "").await?;
                sees(&mut subscription, |snapshot| snapshot.instances().is_empty()).await?;
            }
            Ok::<_, crate::Error>((started.elapsed(), connections_to(address)?))
        }
    });
    let seen = try_join_all(changes).await?;
    let max_connections = seen.iter().map(|(_, connections)| *connections).max();
    let mut delays: Vec<_> = seen.into_iter().map(|(delay, _)| delay).collect();
    delays.sort();
    Ok(Seen { delays, max_connections: max_connections.unwrap_or_default() })
}

fn name(service: usize) -> String {
    format!("s{service:04}")
}

async fn register(agent: SocketAddr, service: usize, port: u16) -> Result<()> {
    let (name, host) = (name(service), format!("10.0.{}.{}", service / 200, service % 200 + 1));
    let check = format!(r#"{{"CheckID":"{name}","TTL":"10m","Status":"passing"}}"#);
    let body = format!(r#"{{"Name":"{name}","Address":"{host}","Port":{port},"Check":{check}}}"#);
    put(agent, "/v1/agent/service/register", &body).await
}

async fn sees(subscription: &mut Subscription, wanted: impl Fn(&Snapshot) -> bool) -> Result<()> {
    let seen = async {
        while !wanted(&subscription.snapshot()) {
            subscription.changed().await?;
        }
        Ok(())
    };
    timeout(BOUND, seen).await?
}

const SERVICES: usize = 1_000;
