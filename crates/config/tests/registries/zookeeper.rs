use crate::support::{has, json, on_zookeeper, sees};

/// As every parent is, and `/zookeeper` always.
#[tokio::test]
#[ignore = "needs a real zookeeper"]
async fn node_that_only_holds_others_is_no_value() {
    on_zookeeper(async |registry| {
        registry.put("app/limit", "3").await;
        registry.put("app/db", "").await;
        registry.put("app/db/host", "h").await;
        let mut config = registry.follow_prefix("app", json());
        sees(&mut config, "the value", has(3)).await;
        registry.put("app/limit", "4").await;
        sees(&mut config, "the next value", has(4)).await;
    })
    .await;
}
