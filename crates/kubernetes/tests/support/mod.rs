//! An API server, and the slices that a test writes as the platform would.

use std::io;

use serde_json::{Value, json};
use tower_sd_testkit::{
    real::{Kubernetes, KubernetesConfig},
    servers::{ServerBinary, configured},
};

/// With the newest etcd that there is.
pub(crate) async fn start(kubernetes: ServerBinary) -> io::Result<Kubernetes> {
    let server = Kubernetes::start(KubernetesConfig::new(kubernetes, newest("etcd")?)).await?;
    server.admin()?.namespace(NAMESPACE).await?;
    Ok(server)
}

/// The newest of a server that there is.
pub(crate) fn newest(server: &'static str) -> io::Result<ServerBinary> {
    let mut binaries = configured(server).map_err(io::Error::other)?;
    binaries.pop().ok_or_else(|| io::Error::other(format!("no {server}")))
}

/// One slice of a Service, with one port.
pub(crate) fn slice(service: &str, name: &str, port: u16, endpoints: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": NAMESPACE,
            "name": name,
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "", "port": port, "protocol": "TCP" }],
        "endpoints": endpoints,
    })
}

/// An endpoint of a pod.
pub(crate) fn endpoint(pod: &str, address: &str, condition: Condition) -> Value {
    let (ready, serving, terminating) = match condition {
        Condition::Ready => (true, true, false),
        Condition::NotReady => (false, false, false),
        Condition::Terminating => (false, true, true),
    };
    json!({
        "addresses": [address],
        "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
        "targetRef": { "kind": "Pod", "namespace": NAMESPACE, "name": pod },
    })
}

/// What the platform writes about a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Condition {
    Ready,
    NotReady,
    Terminating,
}

pub(crate) const NAMESPACE: &str = "shop";
