use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use fastrand::Rng;
use serde_json::{Value, json};
use tower_sd_testkit::script::{Received, Reply, Script};

use super::*;
use crate::{EurekaConfig, client::EurekaClient};

/// A server that keeps its entries and its recent changes as eureka-core does.
#[derive(Default)]
struct Model {
    entries: BTreeMap<(String, String), Value>,
    /// Each with the round of its change.
    recent: VecDeque<(u32, String, Value)>,
    round: u32,
    n_deltas: usize,
}

impl Model {
    /// One random change: registers, changes or removes an entry.
    fn change(&mut self, rng: &mut Rng) {
        // A server that keeps the case in which names were registered.
        let name = ["APP0", "APP1", "APP2", "app3", "App4", "app5"][rng.usize(..6)];
        let (app, id) = (name.to_owned(), format!("i{}", rng.u8(..8)));
        let key = (app.clone(), id.clone());
        let known = self.entries.get(&key).cloned();
        let entry = match known {
            Some(mut entry) if rng.u8(..3) == 0 => {
                entry["actionType"] = "DELETED".into();
                self.entries.remove(&key);
                entry
            }
            known => {
                let status =
                    ["UP", "DOWN", "STARTING", "OUT_OF_SERVICE", "STRANGE"][rng.usize(..5)];
                let entry = json!({
                    "instanceId": id, "app": app, "hostName": "h", "status": status,
                    "port": {"$": rng.u16(1..), "@enabled": "true"},
                    "lastDirtyTimestamp": rng.u32(..).to_string(),
                    "actionType": if known.is_some() { "MODIFIED" } else { "ADDED" },
                });
                self.entries.insert(key, entry.clone());
                entry
            }
        };
        self.recent.push_back((self.round, app, entry));
    }

    /// Ends a round; changes are shown for three.
    fn pass(&mut self) {
        self.round += 1;
        self.recent.retain(|(round, ..)| round + 3 > self.round);
    }

    fn applications(entries: impl Iterator<Item = (String, Value)>) -> Value {
        let mut apps: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (app, entry) in entries {
            let list = apps.entry(app).or_default();
            list.retain(|it| it["instanceId"] != entry["instanceId"]);
            list.push(entry);
        }
        apps.into_iter()
            .map(|(name, instance)| json!({"name": name, "instance": instance}))
            .collect()
    }

    fn hash(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in self.entries.values() {
            let status = entry["status"].as_str().expect("a text");
            *counts.entry(if status == "STRANGE" { "UNKNOWN" } else { status }).or_default() += 1;
        }
        counts.iter().map(|(status, n)| format!("{status}_{n}_")).collect()
    }

    fn answer(&mut self, request: &Received) -> Reply {
        let application = match request.target.as_str() {
            "/eureka/apps" => {
                let entries = self.entries.iter();
                Self::applications(entries.map(|((app, _), entry)| (app.clone(), entry.clone())))
            }
            "/eureka/apps/delta" => {
                self.n_deltas += 1;
                let recent = self.recent.iter();
                Self::applications(recent.map(|(_, app, entry)| (app.clone(), entry.clone())))
            }
            other => panic!("{other}"),
        };
        let body = json!({"applications": {
            "versions__delta": "1", "apps__hashcode": self.hash(), "application": application,
        }});
        Reply::new(200).body(body.to_string())
    }
}

fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn full(client: &EurekaClient) -> Registry {
    Registry::clone(&*Fetch::new().read(&client.0.wire.servers).await.expect("an answer"))
}

/// 10 000 random changes, seen by deltas alone, and in whole by another reader.
#[tokio::test]
async fn changes_give_what_a_full_read_gives() {
    let model = Arc::new(Mutex::new(Model::default()));
    let server = Arc::clone(&model);
    let script = Script::answering(move |request| lock(&server).answer(request)).await;
    let script = script.expect("loopback");
    let client = EurekaClient::new(EurekaConfig::new(format!("{}/eureka", script.url())));
    let (client, mut rng) = (client.expect("it can work"), Rng::with_seed(22));
    let mut fetch = Fetch::new();
    let mut n_changes = 0;
    while n_changes < 10_000 {
        for _ in 0..rng.u8(..40) {
            lock(&model).change(&mut rng);
            n_changes += 1;
        }
        let read = fetch.read(&client.0.wire.servers).await.expect("an answer");
        assert_eq!(*read, full(&client).await, "after {n_changes} changes");
        lock(&model).pass();
    }
    assert_eq!(fetch.n_full, 1, "all but the first by changes");
    let found = fetch.registry.entries(&crate::mapping::app_name("app4")).len();
    let expected = lock(&model).entries.keys().filter(|(app, _)| app == "App4").count();
    assert_eq!(found, expected);
    assert!(lock(&model).n_deltas > 400);
    // Changes that have expired are noticed by their number.
    for _ in 0..200 {
        lock(&model).change(&mut rng);
    }
    (0..4).for_each(|_| lock(&model).pass());
    let read = fetch.read(&client.0.wire.servers).await.expect("an answer");
    assert_eq!(*read, full(&client).await);
    assert_eq!(fetch.n_full, 2);
    // Those that a server has dropped may leave the numbers as they were.
    tokio::time::pause();
    tokio::time::advance(DELTA_WINDOW).await;
    tokio::time::resume();
    fetch.read(&client.0.wire.servers).await.expect("an answer");
    assert_eq!(fetch.n_full, 3);
}
