//! Compaction and limits, as etcd has them.

use tower_sd_config::WatchedConfig;
use tower_sd_etcd::{Etcd, EtcdConfig};
use tower_sd_testkit::proxy::{Fault, Proxy};

use crate::support::{Registry, has, json, on_every_etcd, operator, sees};

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn compaction_while_cut_off_loses_nothing() {
    on_every_etcd(async |registry| {
        let Registry::Etcd(server, _) = registry else { unreachable!("only etcd") };
        registry.put("app", r#"{"limit": 1}"#).await;
        let proxy = Proxy::start(server.address()).await.expect("a proxy");
        let settings = EtcdConfig::new([proxy.address().to_string()]);
        let client = Etcd::new(settings).expect("an address");
        let mut config = WatchedConfig::new(client.key_value("app"), json());
        sees(&mut config, "the value", has(1)).await;
        proxy.set(Fault::Cut).await;
        for n in 2..=9 {
            registry.put("app", &format!(r#"{{"limit": {n}}}"#)).await;
        }
        let mut operator = operator(server).await;
        let put = operator.put("other", "x", None).await.expect("the server answers");
        let revision = put.header().expect("a header").revision();
        operator.compact(revision, None).await.expect("compacts");
        proxy.set(Fault::None).await;
        sees(&mut config, "the last", has(9)).await;
        registry.put("app", r#"{"limit": 10}"#).await;
        let latest = sees(&mut config, "the next", has(10)).await;
        assert!(latest.freshness().is_fresh());
    })
    .await;
}

/// `--max-request-bytes` is 1.5 MiB by default; gRPC adds up to 512 KiB for itself.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn mebibyte_and_a_half_is_taken_and_more_refused() {
    on_every_etcd(async |registry| {
        let mut config = registry.follow("app", json());
        let sized = |limit: u32, size: usize| {
            let start = format!("{{\"limit\": {limit}, \"text\": \"");
            format!("{start}{}\"}}", "x".repeat(size - start.len() - 2))
        };
        registry.put("app", &sized(1, 1 << 20)).await;
        sees(&mut config, "a mebibyte", has(1)).await;
        // The request is the key, the value and a few bytes.
        registry.put("app", &sized(2, (1536 << 10) - 64)).await;
        let latest = sees(&mut config, "the largest", has(2)).await;
        assert!(latest.value().expect("a value").text.len() > 1_572_000);
        let refused = registry.try_put("app", &sized(3, (1536 << 10) + 64)).await;
        let told = refused.expect_err("refused");
        assert!(told.contains("request is too large"), "{told}");
        registry.put("app", r#"{"limit": 4}"#).await;
        sees(&mut config, "a small one", has(4)).await;
    })
    .await;
}
