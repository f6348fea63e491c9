//! Check-and-set, limits and tokens, as Consul has them.

use tower_sd_config::{WatchOptions, WatchedConfig};
use tower_sd_consul::{Consul, ConsulConfig, ConsulKv};
use tower_sd_core::{BoxError, Error, ErrorKind};
use tower_sd_testkit::{real, servers::configured, wire::request};

use crate::support::{BOUND, Registry, has, json, on_every_consul, sees};

fn kv(registry: &Registry) -> ConsulKv {
    match registry {
        Registry::Consul(_, client) => client.kv(),
        _ => unreachable!("only Consul is used here"),
    }
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn check_and_set_loses_to_another_writer() {
    on_every_consul(async |registry| {
        let kv = kv(registry);
        assert_eq!(kv.get("a/b c/ü").await.expect("answered"), None);
        kv.create("a/b c/ü", "one").await.expect("it is new");
        let error = kv.create("a/b c/ü", "again").await.expect_err("it exists");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let first = kv.get("a/b c/ü").await.expect("answered").expect("there");
        assert_eq!((first.key.as_str(), first.value.as_slice()), ("a/b c/ü", &b"one"[..]));
        assert_eq!(first.create_index, first.modify_index);
        kv.replace("a/b c/ü", "two", first.modify_index).await.expect("no other writer");
        let late = kv.replace("a/b c/ü", "three", first.modify_index).await;
        let error = late.expect_err("another writer");
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Conflict, false));
        let late = kv.delete_unchanged("a/b c/ü", first.modify_index).await;
        assert_eq!(late.map_err(|error| error.kind()), Err(ErrorKind::Conflict));
        let second = kv.get("a/b c/ü").await.expect("answered").expect("there");
        assert_eq!(second.value, b"two");
        kv.delete_unchanged("a/b c/ü", second.modify_index).await.expect("no other writer");
        kv.delete("a/b c/ü").await.expect("that it is gone is success");
        assert_eq!(kv.get("a/b c/ü").await.expect("answered"), None);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn empty_and_binary_values_and_lists_come_back_as_written() {
    on_every_consul(async |registry| {
        let kv = kv(registry);
        let bytes: Vec<u8> = (0..=255).collect();
        kv.put("x/empty", "").await.expect("written");
        kv.put("x/bytes", bytes.clone()).await.expect("written");
        kv.put("y", "1").await.expect("written");
        let list = kv.list("x/").await.expect("answered");
        let found: Vec<_> = list.iter().map(|it| (it.key.as_str(), it.value.clone())).collect();
        assert_eq!(found, [("x/bytes", bytes), ("x/empty", Vec::new())]);
        for key in ["/x", "a/../b", "./a"] {
            let error = kv.put(key, "1").await.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Config, "{key}");
        }
    })
    .await;
}

/// `limits.kv_max_value_size` is 512 KiB by default.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn half_a_mebibyte_is_taken_and_a_byte_more_refused() {
    on_every_consul(async |registry| {
        let mut config = registry.follow("app", json());
        let sized = |limit: u32, size: usize| {
            let start = format!("{{\"limit\": {limit}, \"text\": \"");
            format!("{start}{}\"}}", "x".repeat(size - start.len() - 2))
        };
        registry.put("app", &sized(1, 512 << 10)).await;
        let latest = sees(&mut config, "the largest", has(1)).await;
        assert!(latest.value().expect("a value").text.len() > 500_000);
        let error = kv(registry).put("app", sized(2, (512 << 10) + 1)).await.expect_err("refused");
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Config, false), "{error}");
        assert!(error.to_string().contains("413"), "{error}");
        kv(registry).put("app", sized(3, 1 << 20)).await.expect_err("refused");
        registry.put("app", r#"{"limit": 4}"#).await;
        sees(&mut config, "a small one", has(4)).await;
    })
    .await;
}

const ROOT: &str = "6f0c2a0e-2f5a-4d6f-9a52-3d6a5f1f7d02";

/// Under ACLs that deny by default; the test's own requests are root's.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn token_is_bound_by_its_rules_and_missing_ones_are_named() {
    let tokens = format!(r#"{{"master": "{ROOT}", "default": "{ROOT}"}}"#);
    let acl = format!(r#"{{"enabled": true, "default_policy": "deny", "tokens": {tokens}}}"#);
    let acl = format!(r#"{{"primary_datacenter": "dc1", "acl": {acl}}}"#);
    for binary in configured("consul").unwrap_or_else(|missing| panic!("{missing}")) {
        let config = real::ConsulConfig::dev(binary).config(acl.as_str());
        let agent = real::Consul::start(config).await.expect("the agent starts");
        let client = |token: &str| {
            let config = ConsulConfig::new(agent.url()).token(token);
            Consul::new(config).expect("an address")
        };
        client(ROOT).kv().put("app/limit", "1").await.expect("root may");
        let token = reader(&agent).await;
        let reads = client(&token).kv();
        assert!(reads.get("app/limit").await.expect("it may").is_some());
        let refused = [reads.put("app/limit", "2").await, reads.get("other").await.map(drop)];
        for error in refused.map(|refused| refused.expect_err("it may not")) {
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            assert!(error.to_string().contains("key:write to write"), "{error}");
            assert!(!format!("{error:?}").contains(&token), "{error:?}");
        }
        let follow = |key: &str| -> WatchedConfig<u32> {
            WatchedConfig::new(client(&token).key_value(key), WatchOptions::json())
        };
        let mut allowed = follow("app/limit");
        allowed.ready(BOUND).await.expect("it may");
        assert_eq!(allowed.value().as_deref(), Some(&1));
        let latest = follow("other").changed().await.expect("the loop lives");
        assert_eq!(latest.freshness().error().map(Error::kind), Some(ErrorKind::Denied));
    }
}

/// Makes a token that may read below `app/`.
async fn reader(agent: &real::Consul) -> String {
    let rules = r#"{"Name": "reads", "Rules": "key_prefix \"app/\" { policy = \"read\" }"}"#;
    let made = request(agent.address(), "PUT", "/v1/acl/policy", rules).await.expect("answered");
    assert_eq!(made.status, 200, "{}", made.body);
    let policies = r#"{"Policies": [{"Name": "reads"}]}"#;
    let made = request(agent.address(), "PUT", "/v1/acl/token", policies).await.expect("answered");
    let rest = made.body.split(r#""SecretID""#).nth(1).expect("a token");
    rest.split('"').nth(1).expect("a token").to_owned()
}

/// An agent as tutorials leave it: the store is written by others.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn what_others_write_over_http_is_followed() {
    on_every_consul(async |registry| {
        let Registry::Consul(server, _) = registry else { unreachable!("only Consul") };
        let put = async |target: &str, body: &str| -> Result<(), BoxError> {
            let answer = request(server.address(), "PUT", target, body).await?;
            assert_eq!(answer.body.trim(), "true");
            Ok(())
        };
        // The folder that Consul's web page makes.
        put("/v1/kv/app/", "").await.expect("written");
        put("/v1/kv/app/limit?flags=42", "3").await.expect("written");
        let mut config = registry.follow_prefix("app", json());
        sees(&mut config, "the value", has(3)).await;
        assert_eq!(kv(registry).get("app/limit").await.expect("read").expect("there").flags, 42);
    })
    .await;
}
