//! Watched keys beside services: they share the bound of blocking queries.

use std::{future::pending, time::Duration};

use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tower_sd_consul::{Consul, ConsulConfig, Query};
use tower_sd_core::{
    Entries, Error, FollowConfig, Instancer, KeyValue, ReadMode, Sink, TaskGroup, follow,
};
use tower_sd_testkit::usage::connections_to;

use crate::support::{BOUND, call, listed, on_every_agent, put, sees};

const KEYS: usize = 60;
const MAX_QUERIES: usize = 8;

/// The latest value, or the latest error.
struct Latest(watch::Sender<Result<Option<Vec<u8>>, Error>>);

impl Sink<KeyValue> for Latest {
    fn set(&mut self, entries: Entries<KeyValue>) {
        let value = entries.items.first().map(|key| key.value().to_vec());
        drop(self.0.send_replace(Ok(value)));
    }

    fn unchanged(&mut self, _mode: ReadMode) {}

    fn failed(&mut self, error: Error) {
        drop(self.0.send_replace(Err(error)));
    }

    async fn due(&mut self) {
        pending::<()>().await;
    }
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn keys_above_bound_share_few_connections_and_miss_no_change() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let config = ConsulConfig::new(agent.url()).max_blocking_queries(MAX_QUERIES);
        let consul = Consul::new(config).expect("an address");
        let tasks = TaskGroup::new();
        let mut keys: Vec<watch::Receiver<_>> = Vec::new();
        for n in 0..KEYS {
            let (sender, receiver) = watch::channel(Ok(None));
            let source = consul.key_value(&format!("app/k{n}"));
            tasks.spawn(|stop| {
                let config = FollowConfig::default();
                follow("consul", source, Latest(sender), config, std::sync::Arc::default(), stop)
            });
            keys.push(receiver);
        }
        let mut service = consul.instancer(Query::new("web")).subscribe();
        sees(&mut service, "none", listed(0)).await;
        for value in ["1", "2"] {
            for n in 0..KEYS {
                let written =
                    call(address, "PUT", &format!("/v1/kv/app/k{n}"), &json!(value)).await;
                assert_eq!(written.status, 200, "{}", written.body);
            }
            let start = Instant::now();
            for key in &mut keys {
                let wanted = format!("\"{value}\"").into_bytes();
                let seen = key.wait_for(|latest| {
                    latest.as_ref().expect("no error").as_deref() == Some(&wanted[..])
                });
                timeout(BOUND, seen).await.expect("seen").expect("its loop runs");
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
            let connections = connections_to(address).expect("Linux");
            assert!(connections <= 2 * MAX_QUERIES + 32, "{connections} connections");
        }
        let body = json!({"Name": "web", "Port": 80, "Address": "10.0.0.1"});
        put(address, "/v1/agent/service/register", body).await;
        sees(&mut service, "it", listed(1)).await;
        tasks.close().await;
    })
    .await;
}
