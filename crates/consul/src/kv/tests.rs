use tower_sd_testkit::script::{Reply, Script};

use super::*;
use crate::ConsulConfig;

async fn store(edit: impl FnOnce(ConsulConfig) -> ConsulConfig) -> (Script, ConsulKv) {
    let script = Script::start().await.expect("loopback");
    let client = ConsulClient::new(edit(ConsulConfig::new(script.url()))).expect("an address");
    (script, ConsulKv::new(&client))
}

#[tokio::test]
async fn writes_have_key_condition_datacenter_and_token() {
    let (script, kv) = store(|config| config.datacenter("eu").token("secret")).await;
    for _ in 0..4 {
        script.reply(Reply::new(200).body("true\n"));
    }
    kv.put("a b/ü/", "x").await.expect("written");
    kv.create("a", "").await.expect("written");
    kv.replace("a", "y", 7).await.expect("written");
    kv.delete_unchanged("a", 9).await.expect("deleted");
    let asked = script.received();
    let lines: Vec<_> = asked.iter().map(|it| format!("{} {}", it.method, it.target)).collect();
    let expected = [
        "PUT /v1/kv/a%20b/%C3%BC/?dc=eu",
        "PUT /v1/kv/a?dc=eu&cas=0",
        "PUT /v1/kv/a?dc=eu&cas=7",
        "DELETE /v1/kv/a?dc=eu&cas=9",
    ];
    assert_eq!(lines, expected);
    assert_eq!(asked[2].body, "y");
    assert!(asked.iter().all(|it| it.headers["x-consul-token"] == "secret"));
}

#[tokio::test]
async fn condition_that_does_not_hold_is_a_conflict() {
    let (script, kv) = store(|config| config).await;
    script.reply(Reply::new(200).body("false"));
    script.reply(Reply::new(200).body("false"));
    let error = kv.create("a", "x").await.expect_err("it exists");
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::Conflict, "consul create: key a exists".into())
    );
    let error = kv.replace("a", "x", 3).await.expect_err("changed");
    assert!(error.to_string().ends_with("was changed meanwhile; read it again"), "{error}");
}

#[tokio::test]
async fn every_other_answer_has_its_kind() {
    let rows = [
        (200, "maybe", ErrorKind::Protocol),
        (403, "Permission denied", ErrorKind::Denied),
        (413, "Value exceeds 524288 byte limit", ErrorKind::Config),
        (500, "No cluster leader", ErrorKind::Unavailable),
    ];
    for (status, body, kind) in rows {
        let (script, kv) = store(|config| config).await;
        script.reply(Reply::new(status).body(body));
        let error = kv.put("a", "x").await.expect_err("no success");
        assert_eq!(error.kind(), kind, "{status} {body}: {error}");
    }
}

#[tokio::test]
async fn what_is_read_is_decoded_and_garbage_refused() {
    let (script, kv) = store(|config| config.datacenter("eu")).await;
    let key = |value: &str| {
        format!(r#"[{{"Key":"a","Flags":1,"Value":{value},"CreateIndex":2,"ModifyIndex":3}}]"#)
    };
    let reply = |body: String| Reply::new(200).header("x-consul-index", "9").body(body);
    script.reply(reply(key(r#""aMOp""#)));
    script.reply(reply(key("null")));
    script.reply(Reply::new(404).header("x-consul-index", "9"));
    script.reply(Reply::new(404).body("no such host"));
    script.reply(reply(key(r#""*""#)));
    script.reply(reply("{}".to_owned()));
    let entry = kv.get("a").await.expect("read").expect("there");
    assert_eq!((entry.value.as_slice(), entry.flags), ("hé".as_bytes(), 1));
    assert_eq!((entry.create_index, entry.modify_index), (2, 3));
    assert_eq!(kv.get("a").await.expect("read").expect("there").value, b"");
    assert_eq!(kv.get("a").await.expect("read"), None);
    let kinds = [
        kv.get("a").await.expect_err("a proxy's").kind(),
        kv.get("a").await.expect_err("not in base 64").kind(),
        kv.list("a").await.expect_err("no list").kind(),
    ];
    assert_eq!(kinds, [ErrorKind::NotFound, ErrorKind::Protocol, ErrorKind::Protocol]);
    assert_eq!(script.received()[0].target, "/v1/kv/a?dc=eu");
    assert_eq!(script.received()[5].target, "/v1/kv/a?dc=eu&recurse=");
}

#[tokio::test]
async fn keys_that_would_not_survive_the_way_are_refused_here() {
    let (script, kv) = store(|config| config).await;
    for key in ["/a", "a/../b", ".", "a/."] {
        let error = kv.put(key, "x").await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Config, "{key}");
    }
    assert!(script.received().is_empty());
}
