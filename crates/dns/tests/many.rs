//! One process that follows a thousand names.
//!
//! It has no thread for each, and no more questions than their TTL requires.
#![cfg(target_os = "linux")]

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "shared with the wire tests, which use all of it")]
mod support;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tower_sd_core::{FollowConfig, Instancer, RegistryConfig};
use tower_sd_dns::{Dns, DnsConfig, Query, Transport};
use tower_sd_testkit::usage::{resident_kib, threads};

use self::support::{NameServer, Reply, a, srv};

/// Prints what it measures with `--nocapture`; README.md has the numbers. One test, because it
/// counts the threads of the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_names_cost_no_thread_and_no_needless_question() {
    let server = NameServer::start(|asked| {
        let target = format!("a.{}", asked.name);
        let address = a(&target, 0, [10, 0, 0, 1]);
        Reply::records([srv(&asked.name, 0, (0, 0, 80, &target))]).additional(address)
    })
    .await;
    // A busy machine is no reason for an error.
    let dns = DnsConfig::new([server.address]).timeout(Duration::from_secs(20));
    thousand(&server, dns.clone()).await;
    thousand(&server, dns.transport(Transport::TcpFirst)).await;
}

#[expect(clippy::print_stdout, reason = "prints what it measures")]
async fn thousand(server: &NameServer, dns: DnsConfig) {
    let mut follow = FollowConfig::default();
    follow.min_refresh = INTERVAL;
    let dns = Dns::new(dns.registry(RegistryConfig::default().follow(follow)));
    let (n_threads, before) = (threads().expect("Linux"), resident_kib().expect("Linux"));
    let started = Instant::now();
    let instancers: Vec<_> = (0..NAMES)
        .map(|n| {
            let query = Query::srv(&format!("_web._tcp.n{n}.lab.test")).expect("a name");
            dns.instancer(query)
        })
        .collect();
    let subscriptions: Vec<_> = instancers.iter().map(Instancer::subscribe).collect();
    for mut subscription in subscriptions.clone() {
        let ready = subscription.ready(Duration::from_secs(20)).await;
        assert_eq!(ready.expect("it answers").instances().len(), 1);
    }
    let all_ready = started.elapsed();
    let n_before = server.asked().len();
    sleep(INTERVAL * 2).await;
    let asked = server.asked().len() - n_before;
    let memory = resident_kib().expect("Linux").saturating_sub(before);
    println!("ready in {all_ready:?}; {asked} questions in {:?}; {memory} KiB more", INTERVAL * 2);
    assert_eq!(threads().expect("Linux"), n_threads);
    // One each per interval of at most 110 %, and those that were under way.
    assert!((NAMES..=NAMES * 3).contains(&asked), "{asked} questions in two intervals");
    assert!(memory < 64 << 10, "{memory} KiB for {NAMES} names");
    let errors: u64 = subscriptions.iter().map(|it| it.stats().errors).sum();
    assert_eq!(errors, 0, "no query is turned away");
    let closed = async {
        for instancer in &instancers {
            instancer.close().await;
        }
    };
    timeout(Duration::from_secs(5), closed).await.expect("all end immediately");
}

const NAMES: usize = 1000;
const INTERVAL: Duration = Duration::from_secs(2);
