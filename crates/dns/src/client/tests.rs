//! The system's configuration, and its changes.

#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the wire tests, which use all of it")]
mod support;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_resolver::{Hosts, proto::op::ResponseCode};
use tokio::time::timeout;
use tower_sd_core::{
    FollowConfig, Follower, Instancer, LossPolicy, Publisher, RegistryConfig, Subscription,
};

use self::support::{NameServer, Reply, a};
use super::{
    DnsClient,
    servers::Servers,
    system::{System, SystemOptions},
};
use crate::{DnsConfig, Query, Transport, source::DnsSource};

/// A name server with the address 10.0.0.`last` for every name.
async fn server(last: u8) -> NameServer {
    NameServer::start(move |asked| Reply::records([a(&asked.name, 0, [10, 0, 0, last])])).await
}

/// Follows a.lab.test with the name servers and the hosts file of `config` and `read_system`.
fn follow(config: DnsConfig, read_system: fn() -> io::Result<System>) -> Subscription {
    let client = DnsClient(Arc::new(Servers::reading_from(config, read_system)));
    let query = Query::host("a.lab.test", 80).expect("a name");
    let mut follow = FollowConfig::default();
    follow.min_refresh = Duration::from_millis(50);
    let config = RegistryConfig::default().loss(LossPolicy::Accept).follow(follow);
    Follower::new(DnsSource::new(client, query), Publisher::new("dns", "a", config)).subscribe()
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
    let set = |server: &NameServer| *SYSTEM.lock().expect("not poisoned") = vec![server.address];
    let (first, second) = (server(1).await, server(2).await);
    set(&first);
    let mut subscription = follow(DnsConfig::default(), || {
        let servers = SYSTEM.lock().expect("not poisoned").clone();
        Ok(System::new(servers, SystemOptions::default(), Hosts::default()))
    });
    sees(&mut subscription, "10.0.0.1").await;
    set(&second);
    sees(&mut subscription, "10.0.0.2").await;
}

#[tokio::test]
async fn hosts_file_is_obeyed_and_read_again() {
    static LINE: Mutex<String> = Mutex::new(String::new());
    let set = |line: &str| *LINE.lock().expect("not poisoned") = line.to_owned();
    let system = || {
        let line = LINE.lock().expect("not poisoned").clone();
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(line.as_bytes()).expect("well formed");
        let servers = vec![SocketAddr::from(([127, 0, 0, 1], 9))];
        Ok(System::new(servers, SystemOptions::default(), hosts))
    };
    set("192.0.2.1 a.lab.test");
    let mut subscription = follow(DnsConfig::default(), system);
    sees(&mut subscription, "192.0.2.1").await;
    set("192.0.2.2 a.lab.test");
    sees(&mut subscription, "192.0.2.2").await;

    let server = server(1).await;
    let mut subscription = follow(DnsConfig::new([server.address]), system);
    sees(&mut subscription, "10.0.0.1").await;
}

/// The name servers know another address, of the other family.
#[tokio::test]
async fn name_in_the_hosts_file_is_not_queried() {
    static SERVER: Mutex<Option<SocketAddr>> = Mutex::new(None);
    let server = server(1).await;
    *SERVER.lock().expect("not poisoned") = Some(server.address);
    let mut subscription = follow(DnsConfig::default(), || {
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(&b"fd00::5 a.lab.test"[..]).expect("well formed");
        let server = SERVER.lock().expect("not poisoned").expect("set above");
        Ok(System::new(vec![server], SystemOptions::default(), hosts))
    });
    sees(&mut subscription, "fd00::5").await;
    assert!(server.asked().is_empty(), "{:?}", server.asked());
}

#[tokio::test]
async fn options_of_the_system_are_obeyed_and_followed() {
    static SYSTEM: Mutex<(Vec<SocketAddr>, bool)> = Mutex::new((Vec::new(), false));
    let set = |server: SocketAddr, use_tcp| {
        *SYSTEM.lock().expect("not poisoned") = (vec![server], use_tcp);
    };
    let system = || {
        let (servers, use_tcp) = SYSTEM.lock().expect("not poisoned").clone();
        let options = SystemOptions { use_tcp, ..SystemOptions::default() };
        Ok(System::new(servers, options, Hosts::default()))
    };
    let server = server(1).await;
    set(server.address, true);
    let mut subscription = follow(DnsConfig::default(), system);
    sees(&mut subscription, "10.0.0.1").await;
    assert!(server.asked().iter().all(|asked| asked.tcp), "{:?}", server.asked());
    set(server.address, false);
    let over_udp = async {
        while server.asked().iter().all(|asked| asked.tcp) {
            server.is_asked_again(1).await;
        }
    };
    timeout(Duration::from_secs(10), over_udp).await.expect("the option is gone");

    let server = self::server(1).await;
    set(server.address, true);
    let mut subscription = follow(DnsConfig::default().transport(Transport::UdpFirst), system);
    sees(&mut subscription, "10.0.0.1").await;
    assert!(server.asked().iter().all(|asked| !asked.tcp), "{:?}", server.asked());
}

#[tokio::test]
async fn attempts_of_the_system_are_obeyed() {
    static SERVER: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());
    let mut n = 0;
    let server = NameServer::start(move |asked| {
        n += 1;
        match n {
            1 | 2 => Reply::code(ResponseCode::ServFail),
            _ => Reply::records([a(&asked.name, 3600, [10, 0, 0, 1])]),
        }
    })
    .await;
    *SERVER.lock().expect("not poisoned") = vec![server.address];
    let system = || {
        let servers = SERVER.lock().expect("not poisoned").clone();
        let options = SystemOptions { attempts: Some(3), ..SystemOptions::default() };
        Ok(System::new(servers, options, Hosts::default()))
    };
    let mut subscription = follow(DnsConfig::default(), system);
    let snapshot = subscription.changed().await.expect("the loop lives");
    assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
    assert_eq!(server.asked().len(), 3, "{:?}", server.asked());
}
