//! A scripted agent, and a registrar of it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use tower_sd_consul::{Consul, ConsulConfig};
use tower_sd_core::{Instance, Registration, RegistrationHandle};
use tower_sd_testkit::script::{Received, Reply, Script};

pub(crate) fn registrar(script: &Script) -> Consul {
    let config = ConsulConfig::new(script.url()).ttl(Duration::from_secs(1));
    Consul::new(config).expect("an address")
}

pub(crate) fn web() -> Registration {
    Registration::new("web", Instance::new("10.0.0.7", 80).with_id("a"))
}

/// An agent that accepts everything and shows its entry, as a real one does.
#[derive(Default)]
pub(crate) struct Agent {
    service: Option<Value>,
    maintenance: Option<String>,
}

impl Agent {
    pub(crate) fn answer(&mut self, request: &Received) -> Reply {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        match path.split('/').nth(4) {
            _ if path.starts_with("/v1/agent/health/service/id/") => return self.entry(),
            Some("register") => self.service = Some(body(request)),
            Some("deregister") => *self = Self::default(),
            Some("maintenance") => {
                let reason = query.split("reason=").nth(1);
                self.maintenance = reason.map(|reason| reason.replace('+', " "));
            }
            _ => {}
        }
        Reply::new(200)
    }

    fn entry(&self) -> Reply {
        let Some(service) = &self.service else {
            return Reply::new(404).body(r#"{"AggregatedStatus":"critical","Service":null}"#);
        };
        let heartbeat = json!({
            "Node": "n", "CheckID": "service:web:a", "ServiceID": "web:a", "Status": "passing",
        });
        let maintenance = self.maintenance.as_ref().map(|reason| {
            json!({"Node": "n", "CheckID": "_service_maintenance:web:a", "ServiceID": "web:a",
                "Status": "critical", "Notes": percent_decoded(reason)})
        });
        let checks: Vec<Value> = [heartbeat].into_iter().chain(maintenance).collect();
        let mut service = service.clone();
        service["Service"] = service["Name"].take();
        service.as_object_mut().expect("an object").remove("Name");
        // The status is that of the checks.
        let status = if self.maintenance.is_some() { 503 } else { 200 };
        Reply::new(status).body(json!({"Service": service, "Checks": checks}).to_string())
    }
}

fn percent_decoded(text: &str) -> String {
    text.replace("%28", "(").replace("%29", ")")
}

pub(crate) async fn willing() -> Script {
    scripted(Reply::new(200), |_| false).await
}

/// As [`Agent`], with `reply` to the requests that `fails` selects.
pub(crate) async fn scripted(
    reply: Reply,
    mut fails: impl FnMut(&Received) -> bool + Send + 'static,
) -> Script {
    let mut agent = Agent::default();
    let script = Script::answering(move |request| match fails(request) {
        true => reply.clone(),
        false => agent.answer(request),
    });
    script.await.expect("loopback")
}

pub(crate) fn body(request: &Received) -> Value {
    serde_json::from_slice(&request.body).expect("JSON")
}

pub(crate) async fn next(script: &Script) -> Received {
    timeout(BOUND, script.next()).await.expect("a request")
}

pub(crate) async fn next_to(script: &Script, path: &str) -> Received {
    let wanted = async {
        loop {
            let request = script.next().await;
            if request.target.starts_with(path) {
                return request;
            }
        }
    };
    // Heartbeats never end: the bound is on all of them.
    timeout(BOUND, wanted).await.unwrap_or_else(|_elapsed| panic!("{path} is not asked"))
}

pub(crate) async fn register(registrar: &Consul, registration: Registration) -> RegistrationHandle {
    registrar.register(registration).await.expect("the agent accepts it")
}

pub(crate) const BOUND: Duration = Duration::from_secs(5);
