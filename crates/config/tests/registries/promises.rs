//! What every registry's configuration keeps.

use tokio::time::Instant;
use tower_sd_config::{ConfigSnapshot, OnDelete, WatchOptions};
use tower_sd_core::Freshness;

use crate::support::{
    BOUND, has, json, limited, on_every_lasting_registry, on_every_registry, sees,
};

#[tokio::test]
#[ignore = "needs a real consul, etcd and zookeeper"]
async fn burst_of_a_thousand_writes_ends_at_the_last_one() {
    on_every_registry(async |registry| {
        registry.put("app", r#"{"limit": 0}"#).await;
        let mut config = registry.follow("app", json());
        config.ready(BOUND).await.expect("the registry answers");
        let mut slow = config.clone();
        let (mut n_seen, start) = (0, Instant::now());
        let write = async {
            for n in 1..=1000 {
                registry.put("app", &format!(r#"{{"limit": {n}}}"#)).await;
            }
        };
        let watch = async {
            while !has(1000)(&config.latest()) {
                let latest = config.changed().await.expect("the loop lives");
                assert!(latest.rejected().is_none(), "{latest:?}");
                n_seen += 1;
            }
        };
        tokio::join!(write, watch);
        // Ten reads a second, and some when it begins.
        let most = 20 + 10 * start.elapsed().as_secs();
        assert!((1..=most).contains(&n_seen), "{n_seen} values, at most {most}");
        // A reader that has not read meanwhile sees one change, the last.
        let latest = slow.changed().await.expect("the loop lives");
        assert_eq!(latest.value().expect("a value").limit, 1000);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul, etcd and zookeeper"]
async fn registry_that_is_down_at_the_start_leaves_the_default() {
    on_every_lasting_registry(async |registry| {
        registry.put("app", r#"{"limit": 1}"#).await;
        registry.server().kill();
        let mut config = registry.follow("app", json().default_value(limited(7)));
        assert_eq!(config.value().expect("the default").limit, 7);
        let failed = |latest: &ConfigSnapshot<_>| latest.freshness().error().is_some();
        let latest = sees(&mut config, "the trouble", failed).await;
        assert!(has(7)(&latest) && latest.revision().is_none());
        assert!(!latest.freshness().is_synced());
        registry.server().restart().await.expect("it starts again");
        let latest = sees(&mut config, "the registry's value", has(1)).await;
        assert!(latest.freshness().is_fresh());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul, etcd and zookeeper"]
async fn outage_is_seen_as_stale_and_changes_nothing() {
    on_every_lasting_registry(async |registry| {
        registry.put("app", r#"{"limit": 1}"#).await;
        let mut config = registry.follow("app", json());
        sees(&mut config, "the value", has(1)).await;
        registry.server().kill();
        let stale =
            |latest: &ConfigSnapshot<_>| matches!(latest.freshness(), Freshness::Stale { .. });
        let latest = sees(&mut config, "stale", stale).await;
        assert!(has(1)(&latest));
        registry.server().restart().await.expect("it starts again");
        registry.put("app", r#"{"limit": 2}"#).await;
        let latest = sees(&mut config, "the new one", has(2)).await;
        assert!(latest.freshness().is_fresh());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul, etcd and zookeeper"]
async fn malformed_value_is_named_and_not_applied() {
    on_every_registry(async |registry| {
        registry.put("app", r#"{"limit": 1}"#).await;
        let mut config = registry.follow("app", json());
        sees(&mut config, "the value", has(1)).await;
        for (bad, line) in [("{\n\n", 3), ("{\n\"limit\": \"many\"\n}", 2), ("", 1)] {
            registry.put("app", bad).await;
            let told = format!("key app, line {line}, ");
            let rejected = |latest: &ConfigSnapshot<_>| {
                latest.rejected().is_some_and(|error| error.to_string().contains(&told))
            };
            let latest = sees(&mut config, &told, rejected).await;
            assert!(has(1)(&latest) && latest.freshness().is_fresh());
        }
        registry.put("app", r#"{"limit": 2}"#).await;
        let latest = sees(&mut config, "the good one", has(2)).await;
        assert!(latest.rejected().is_none());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul, etcd and zookeeper"]
async fn key_that_is_deleted_and_made_again_is_followed_throughout() {
    on_every_registry(async |registry| {
        let policies = [
            (OnDelete::KeepLast, Some(limited(1))),
            (OnDelete::Default, Some(limited(7))),
            (OnDelete::Clear, None),
        ];
        for (policy, expected) in policies {
            registry.put("app", r#"{"limit": 1}"#).await;
            let options = json().default_value(limited(7)).on_delete(policy);
            let mut config = registry.follow("app", options);
            sees(&mut config, "the value", has(1)).await;
            registry.delete("app").await;
            let latest = sees(&mut config, "that it is gone", ConfigSnapshot::is_absent).await;
            assert_eq!(latest.value().map(|it| (**it).clone()), expected, "{policy:?}");
            registry.put("app", r#"{"limit": 2}"#).await;
            let latest = sees(&mut config, "the next one", has(2)).await;
            assert!(!latest.is_absent());
            config.close().await;
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul, etcd and zookeeper"]
async fn key_that_is_not_there_yet_is_waited_for() {
    on_every_registry(async |registry| {
        let mut config = registry.follow("app", json());
        let latest = config.ready(BOUND).await.expect("the registry answers");
        assert!(latest.is_absent() && latest.value().is_none());
        registry.put("apple", r#"{"limit": 9}"#).await;
        registry.put("app", r#"{"limit": 1}"#).await;
        sees(&mut config, "the value", has(1)).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul, etcd and zookeeper"]
async fn keys_below_a_prefix_are_the_fields() {
    on_every_registry(async |registry| {
        registry.put("app/limit", "1").await;
        registry.put("app/text", r#""a""#).await;
        registry.put("apple", "not ours").await;
        let mut config = registry.follow_prefix("app", json());
        let latest = sees(&mut config, "the value", has(1)).await;
        assert_eq!(latest.value().expect("a value").text, "a");
        registry.put("app/limit", "2").await;
        sees(&mut config, "the change", has(2)).await;
        registry.delete("app/text").await;
        let without = |latest: &ConfigSnapshot<crate::support::Settings>| {
            latest.value().is_some_and(|it| it.text.is_empty())
        };
        sees(&mut config, "the default of the field", without).await;
        registry.put("app/text", "\n7").await;
        let rejected = |latest: &ConfigSnapshot<_>| {
            let told = latest.rejected().map(ToString::to_string).unwrap_or_default();
            told.contains("key app/text, line 2, column 1: invalid type")
        };
        let latest = sees(&mut config, "the complaint", rejected).await;
        assert!(has(2)(&latest));
        registry.delete("app/text").await;
        registry.delete("app/limit").await;
        let latest = sees(&mut config, "that all are gone", ConfigSnapshot::is_absent).await;
        assert!(has(2)(&latest), "the last good one");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul, etcd and zookeeper"]
async fn toml_is_read_too() {
    on_every_registry(async |registry| {
        registry.put("app", "limit = 1\n\ntext = 'x'\n").await;
        let mut config = registry.follow("app", WatchOptions::toml());
        let latest = sees(&mut config, "the value", has(1)).await;
        assert_eq!(latest.value().expect("a value").text, "x");
        registry.put("app", "limit = 2\n\ntext = 7\n").await;
        let latest = sees(&mut config, "a complaint", |it| it.rejected().is_some()).await;
        let told = latest.rejected().expect("rejected").to_string();
        assert!(told.contains("key app, line 3, column 8"), "{told}");
    })
    .await;
}
