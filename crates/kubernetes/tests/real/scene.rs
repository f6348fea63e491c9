use std::time::Duration;

use serde_json::Value;
use tower_sd_core::{Instancer, Snapshot, Subscription, TlsConfig};
use tower_sd_kubernetes::{Kubernetes, KubernetesConfig};
use tower_sd_testkit::{
    real::{self, KubernetesApi},
    wait::{shows, shows_that},
};

use crate::support::{Condition, NAMESPACE, endpoint, newest, slice, start};

/// A server, its administrator, and a client of ours.
pub(crate) struct Scene {
    pub(crate) server: real::Kubernetes,
    pub(crate) api: KubernetesApi,
    pub(crate) client: Kubernetes,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let server = newest("kubernetes").expect("one is there");
        let server = start(server).await.expect("it starts");
        let api = server.admin().expect("an administrator's client");
        let config = config(&server).token(real::Kubernetes::ADMIN);
        let client = Kubernetes::new(config).expect("good settings");
        Self { server, api, client }
    }

    pub(crate) async fn apply(&self, slice: &Value) {
        self.api.apply(slice).await.expect("a well server takes a slice");
    }

    /// Writes the slice `SERVICE-1` with these pods, all ready.
    pub(crate) async fn lists(&self, service: &str, pods: &[&str]) {
        self.apply(&ready(service, pods)).await;
    }

    pub(crate) fn follow(&self, service: &str) -> Subscription {
        self.client.instancer(service).subscribe()
    }
}

/// Through the proxy; without a token.
pub(crate) fn config(server: &real::Kubernetes) -> KubernetesConfig {
    let tls = TlsConfig::new().with_root(server.authority().pem());
    KubernetesConfig::new(server.proxied_url()).namespace(NAMESPACE).tls(tls)
}

/// The slice `SERVICE-1`: the pods `a`, `b` … have the addresses 10.0.0.97, 10.0.0.98 …
pub(crate) fn ready(service: &str, pods: &[&str]) -> Value {
    let address = |pod: &str| format!("10.0.0.{}", pod.as_bytes()[0]);
    let endpoints = pods.iter().map(|pod| endpoint(pod, &address(pod), Condition::Ready));
    slice(service, &format!("{service}-1"), 80, &endpoints.collect::<Vec<_>>())
}

pub(crate) async fn shows_fresh(subscription: &mut Subscription, pods: &[&str]) -> Snapshot {
    let what = format!("exactly {pods:?}, fresh");
    let wanted = |it: &Snapshot| it.freshness().is_fresh() && names(it) == pods;
    shows_that(subscription, &what, RECOVERED, wanted).await
}

pub(crate) async fn shows_now(subscription: &mut Subscription, pods: &[&str]) -> Snapshot {
    shows(subscription, pods, SOON).await
}

pub(crate) async fn is_stale(subscription: &mut Subscription) -> Snapshot {
    let stale = |it: &Snapshot| !it.freshness().is_fresh();
    shows_that(subscription, "stale", RECOVERED, stale).await
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.instances().iter().map(|it| it.id().as_str()).collect()
}

#[expect(clippy::print_stderr, reason = "figures are for people to read")]
pub(crate) fn note(text: &str) {
    eprintln!("note: {text}");
}

/// Long enough for everything that should be immediate.
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// For a client that waits between two attempts, and for the guard against losses.
pub(crate) const RECOVERED: Duration = Duration::from_secs(60);
