use std::time::Duration;

use super::*;
use crate::{ErrorKind, Instancer, MemoryRegistry, Schemes};

fn instance(text: &str) -> Instance {
    text.parse().expect(text)
}

async fn listed(instancer: &Follower) -> Vec<String> {
    let snapshot = instancer.subscribe().ready(Duration::from_secs(1)).await.expect("answers");
    snapshot.instances().iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn registry_registers_and_follows() {
    let memory = MemoryRegistry::new();
    let registry = Registry::from(memory.clone());
    let handle = registry.register(Registration::new("a", instance("10.0.0.1:80"))).await;
    let handle = handle.expect("registers");
    assert_eq!(listed(&registry.instancer("a").expect("any name")).await, ["10.0.0.1:80"]);
    handle.deregister().await.expect("deregisters");
    assert!(memory.entries("a").is_empty());
}

#[tokio::test(start_paused = true)]
async fn closed_registry_has_no_registrations_and_still_follows() {
    let memory = MemoryRegistry::new();
    let registry = Registry::from(memory.clone());
    let handle = registry.register(Registration::new("a", instance("10.0.0.1:80"))).await;
    let _handle = handle.expect("registers");
    let instancer = registry.instancer("a").expect("any name");
    assert_eq!(listed(&instancer).await, ["10.0.0.1:80"]);
    registry.close().await;
    assert!(memory.entries("a").is_empty());
    assert!(instancer.subscribe().snapshot().freshness().is_fresh());
    let registration = Registration::new("a", instance("10.0.0.1:80"));
    for registration in [registration.clone(), registration.retry_in_background()] {
        let error = registry.register(registration).await.expect_err("closed");
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn instancers_and_registrations_outlive_their_registry() {
    let memory = MemoryRegistry::new();
    let registry = Registry::from(memory.clone());
    let handle = registry.register(Registration::new("a", instance("10.0.0.1:80"))).await;
    let _handle = handle.expect("registers");
    let instancer = registry.instancer("a").expect("any name");
    drop((registry, memory.clone()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(memory.entries("a").len(), 1);
    assert_eq!(listed(&instancer).await, ["10.0.0.1:80"]);
}

#[tokio::test(start_paused = true)]
async fn ttl_is_of_the_registration_or_else_of_the_registry() {
    let config = RegistryConfig::default().ttl(Duration::from_secs(6));
    let memory = MemoryRegistry::with_config(config);
    for (id, own, expected) in [("a", None, 6), ("b", Some(Duration::from_secs(60)), 60)] {
        let registration = Registration::new("s", instance("10.0.0.1:80").with_id(id));
        let registration = own.into_iter().fold(registration, Registration::ttl);
        let handle = memory.register(registration).await.expect("registers");
        memory.interrupt();
        tokio::time::sleep(Duration::from_secs(expected - 3)).await;
        assert_eq!(memory.entries("s").len(), 1, "{id}");
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(memory.entries("s").len(), 0, "{id}");
        memory.resume();
        drop(handle);
    }
}

#[tokio::test(start_paused = true)]
async fn static_url_lists_addresses_and_is_read_only() {
    let registry = Schemes::new().open("static://127.0.0.1:8081,[::1]:8082,a.example:80");
    let registry = registry.expect("three addresses");
    let instancer = registry.instancer("x").expect("any name");
    assert_eq!(listed(&instancer).await, ["127.0.0.1:8081", "[::1]:8082", "a.example:80"]);
    let error = registry.register(Registration::new("x", instance("10.0.0.1:80"))).await;
    let error = error.expect_err("nothing to write").to_string();
    assert!(error.contains("the registry is read only"), "{error}");
    let error = registry.key_value("a").map(drop).expect_err("no store").to_string();
    assert!(error.contains("no key-value store"), "{error}");
}

#[test]
fn malformed_urls_are_refused_with_a_sentence() {
    let schemes = Schemes::new().without("etcd", "enable the feature `etcd`");
    let complaint = |url| schemes.open(url).expect_err("refused").to_string();
    for (url, why) in [
        ("static://8081", "\"8081:0\""),
        ("static://a:1?b=c", "unknown option \"b\"; there are none"),
        ("static://a:1/orders", "instancer(\"orders\")"),
        ("etcd://a", "etcd is not compiled in; enable the feature `etcd`"),
        (
            "carrier-pigeon://loft",
            "no registry has the scheme \"carrier-pigeon\"; there are static",
        ),
        ("orders", "the schemes are static"),
    ] {
        assert!(complaint(url).contains(why), "{}", complaint(url));
    }
}

#[test]
fn config_is_read_from_a_file() {
    let text = r#"{
        "ttl": "5s",
        "loss": {"guard": {"fraction": 0.3, "hold": "20s"}},
        "invalidate_after": "1m",
        "addresses": {"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"], "ip_only": true},
        "follow": {"resync": "never", "max_backoff": "10s"},
        "announce": {"call_timeout": "1s"}
    }"#;
    let config: RegistryConfig = serde_json::from_str(text).expect("settings");
    assert_eq!(config.ttl, Some(Duration::from_secs(5)));
    let crate::LossPolicy::Guard(guard) = config.loss else { panic!("{:?}", config.loss) };
    assert_eq!((guard.fraction, guard.hold), (0.3, Duration::from_secs(20)));
    assert_eq!(guard.window, Duration::from_secs(10), "the default");
    assert_eq!(config.invalidate_after, Some(Duration::from_secs(60)));
    assert_eq!((config.follow.resync, config.follow.max_backoff), (None, Duration::from_secs(10)));
    assert_eq!(config.announce.call_timeout, Duration::from_secs(1));
    let refused = |text| config.addresses.check(&instance(text)).is_err();
    assert!(!refused("10.0.0.1:80") && refused("10.1.0.1:80") && refused("192.0.2.1:80"));
    assert!(refused("169.254.169.254:80"), "link-local networks stay denied");
    let error = serde_json::from_str::<RegistryConfig>(r#"{"tll": "5s"}"#).expect_err("no such");
    assert!(error.to_string().contains("unknown field `tll`"), "{error}");
}
