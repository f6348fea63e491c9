//! The system's configuration, which is followed while it changes.

#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the wire tests, which use all of it")]
mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_resolver::Hosts;
use tokio::time::timeout;
use tower_sd_core::{FollowConfig, Instancer, LossPolicy, PublisherConfig, Result, Subscription};

use self::support::{NameServer, Reply, a};
use super::{
    DnsClient,
    servers::{Servers, System},
};
use crate::{DnsConfig, DnsInstancer, Query};

/// One that says of every name that its address is 10.0.0.`last`.
async fn server(last: u8) -> NameServer {
    NameServer::start(move |asked| Reply::records([a(&asked.name, 0, [10, 0, 0, last])])).await
}

/// Follows a.lab.test with the name servers and the hosts file that `config` and `read_system` say.
fn follow(config: DnsConfig, read_system: fn() -> Result<System>) -> Subscription {
    let client = DnsClient(Arc::new(Servers::reading_from(config, read_system)));
    let query = Query::host("a.lab.test", 80).expect("a name");
    let publisher = PublisherConfig::new("dns", "a").loss(LossPolicy::Accept);
    let mut follow = FollowConfig::new("dns");
    follow.min_refresh = Duration::from_millis(50);
    DnsInstancer::with_config(&client, query, publisher, follow).subscribe()
}

async fn sees(subscription: &mut Subscription, host: &str) {
    let wait = async {
        let mut snapshot = subscription.snapshot();
        while snapshot.instances().first().is_none_or(|it| it.host() != host) {
            snapshot = subscription.changed().await.expect("the loop lives");
        }
    };
    let seen = timeout(Duration::from_secs(5), wait).await;
    seen.unwrap_or_else(|_| panic!("not {host}: {:#?}", subscription.snapshot()));
}

#[tokio::test]
async fn change_of_the_systems_servers_is_followed() {
    static SYSTEM: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());
    let says = |server: &NameServer| *SYSTEM.lock().expect("not poisoned") = vec![server.address];
    let (first, second) = (server(1).await, server(2).await);
    says(&first);
    let mut subscription = follow(DnsConfig::default(), || {
        let servers = SYSTEM.lock().expect("not poisoned").clone();
        Ok(System { servers, hosts: Hosts::default() })
    });
    sees(&mut subscription, "10.0.0.1").await;
    says(&second);
    sees(&mut subscription, "10.0.0.2").await;
}

#[tokio::test]
async fn hosts_file_is_obeyed_and_looked_at_again() {
    static LINE: Mutex<String> = Mutex::new(String::new());
    let says = |line: &str| *LINE.lock().expect("not poisoned") = line.to_owned();
    let system = || {
        let line = LINE.lock().expect("not poisoned").clone();
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(line.as_bytes()).expect("well formed");
        Ok(System { servers: vec![SocketAddr::from(([127, 0, 0, 1], 9))], hosts })
    };
    says("192.0.2.1 a.lab.test");
    let mut subscription = follow(DnsConfig::default(), system);
    sees(&mut subscription, "192.0.2.1").await;
    says("192.0.2.2 a.lab.test");
    sees(&mut subscription, "192.0.2.2").await;

    let server = server(1).await;
    let mut subscription = follow(DnsConfig::new([server.address]), system);
    sees(&mut subscription, "10.0.0.1").await;
}
