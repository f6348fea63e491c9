//! What no healthy Consul answers.

use std::time::Duration;

use tokio::time::timeout;
use tower_sd_config::WatchedConfig;
use tower_sd_consul::{Consul, ConsulConfig};
use tower_sd_testkit::script::{Received, Reply, Script};

use crate::support::{BOUND, Settings, has, json, sees};

fn value(index: &str, limit: u32) -> Reply {
    // {"limit": N}, with N of one digit.
    let digit = ["NH0=", "NX0=", "Nn0="][usize::try_from(limit - 4).expect("4, 5 or 6")];
    let body = format!(
        r#"[{{"LockIndex":0,"Key":"app","Flags":0,"Value":"eyJsaW1pdCI6{digit}","CreateIndex":1,"ModifyIndex":7}}]"#
    );
    Reply::new(200).header("x-consul-index", index).body(body)
}

async fn follow() -> (Script, WatchedConfig<Settings>) {
    let script = Script::start().await.expect("loopback");
    let client = Consul::new(ConsulConfig::new(script.url())).expect("an address");
    let config = WatchedConfig::new(client.key_value("app"), json());
    (script, config)
}

async fn next(script: &Script) -> Received {
    timeout(BOUND, script.next()).await.expect("a query")
}

/// The server was restored from older data: its next answer is that to a read without an index.
#[tokio::test]
async fn index_that_went_back_is_read_anew_and_keeps_the_value() {
    let (script, mut config) = follow().await;
    assert_eq!(next(&script).await.target, "/v1/kv/app");
    script.reply(value("100", 4));
    sees(&mut config, "the first", has(4)).await;
    assert_eq!(next(&script).await.target, "/v1/kv/app?index=100&wait=55000ms");
    script.reply(value("9", 5));
    assert_eq!(next(&script).await.target, "/v1/kv/app", "no index is trusted");
    assert!(has(4)(&config.latest()));
    script.reply(value("10", 6));
    sees(&mut config, "the second", has(6)).await;
    assert_eq!(next(&script).await.target, "/v1/kv/app?index=10&wait=55000ms");
}

#[tokio::test]
async fn value_is_kept_after_an_error_and_the_index_dropped() {
    let (script, mut config) = follow().await;
    script.reply(value("100", 4));
    sees(&mut config, "the first", has(4)).await;
    let no_leader = Reply::new(500).header("x-consul-index", "1").body("No cluster leader");
    script.reply(no_leader);
    let latest = sees(&mut config, "the trouble", |it| !it.freshness().is_fresh()).await;
    assert!(has(4)(&latest));
    let asked = [next(&script).await, next(&script).await, next(&script).await];
    assert_eq!(asked.map(|it| it.target.contains("index=")), [false, true, false]);
    script.reply(value("100", 5));
    sees(&mut config, "the second", has(5)).await;
}

#[tokio::test]
async fn missing_key_is_confirmed_and_a_proxys_404_is_none() {
    let (script, mut config) = follow().await;
    script.reply(value("100", 4));
    sees(&mut config, "the value", has(4)).await;
    script.reply(Reply::new(404).body("<html>no such host</html>"));
    let latest = sees(&mut config, "the trouble", |it| !it.freshness().is_fresh()).await;
    assert!(!latest.is_absent());
    script.reply(value("101", 4));
    sees(&mut config, "fresh", |it| it.freshness().is_fresh()).await;
    script.reply(Reply::new(404).header("x-consul-index", "102"));
    let asked = [
        next(&script).await,
        next(&script).await,
        next(&script).await,
        next(&script).await,
        next(&script).await,
    ];
    assert_eq!(asked[4].target, "/v1/kv/app?consistent=");
    assert!(!config.latest().is_absent());
    script.reply(Reply::new(404).header("x-consul-index", "102"));
    let latest =
        sees(&mut config, "that it is gone", tower_sd_config::ConfigSnapshot::is_absent).await;
    assert!(has(4)(&latest));
}

#[tokio::test]
async fn queries_without_an_index_come_every_few_seconds() {
    let (script, mut config) = follow().await;
    script.reply(value("0", 4));
    script.reply(value("0", 5));
    sees(&mut config, "the first", has(4)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(script.received().len(), 1);
}

#[tokio::test]
async fn values_that_are_not_in_base_64_are_an_error() {
    let (script, mut config) = follow().await;
    let body = r#"[{"Key":"app","Value":"=","ModifyIndex":7}]"#;
    script.reply(Reply::new(200).header("x-consul-index", "7").body(body));
    let failed = |it: &tower_sd_config::ConfigSnapshot<_>| it.freshness().error().is_some();
    let latest = sees(&mut config, "the trouble", failed).await;
    assert!(latest.value().is_none() && !latest.freshness().is_synced());
}

/// Two megabytes of keys, of which one is always new.
#[tokio::test]
async fn large_values_that_always_change_are_read_with_pauses() {
    let (value, mut index) = ("A".repeat(2 << 20), 100);
    let script = Script::answering(move |_| {
        index += 1;
        let body = format!(r#"[{{"Key":"app","Value":"{value}","ModifyIndex":{index}}}]"#);
        Reply::new(200).header("x-consul-index", &index.to_string()).body(body)
    });
    let script = script.await.expect("loopback");
    let client = Consul::new(ConsulConfig::new(script.url())).expect("an address");
    let _config = WatchedConfig::<Settings>::new(client.key_value("app"), json());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let n_reads = script.received().len();
    assert!((2..=5).contains(&n_reads), "{n_reads} reads of 2 MB in 2 s");
}
