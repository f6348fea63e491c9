use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, header};
use serde_json::{Value, json};
use tower_sd_core::TlsConfig;
use tower_sd_net::{HttpClient, Target, TlsClient};

/// A client of an API server, with one token and connections of its own.
///
/// Objects are JSON with `apiVersion`, `kind` and `metadata`.
#[derive(Clone, Debug)]
pub struct KubernetesApi {
    http: HttpClient,
    token: String,
}

impl KubernetesApi {
    /// Creates a client of the server at `address`, whose authority is `ca` (PEM).
    ///
    /// # Errors
    ///
    /// `ca` is no certificate.
    pub fn new(address: SocketAddr, ca: &str, token: impl Into<String>) -> io::Result<Self> {
        let tls = TlsClient::new(TlsConfig::new().with_root(ca)).map_err(io::Error::other)?;
        let target = Target::host(address.ip().to_string(), address.port());
        let http = HttpClient::builder(target).tls(tls).build().map_err(io::Error::other)?;
        Ok(Self { http, token: token.into() })
    }

    /// Creates an object or replaces what was applied before.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses; with its message.
    pub async fn apply(&self, object: &Value) -> io::Result<Value> {
        let path = format!("{}?fieldManager=testkit&force=true", path_of(object)?);
        self.request(Method::PATCH, &path, APPLY, object.to_string()).await
    }

    /// Has the server validate an object in YAML, and store nothing.
    ///
    /// Unknown and duplicate fields are errors. `namespace` is for an object without one.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses; with its message.
    pub async fn validate(&self, namespace: &str, yaml: &str) -> io::Result<Value> {
        let field = |start| yaml.lines().find_map(|line| line.strip_prefix(start)).map(str::trim);
        let metadata = json!({ "namespace": namespace, "name": field("  name:") });
        let (version, kind) = (field("apiVersion:"), field("kind:"));
        let object = json!({ "apiVersion": version, "kind": kind, "metadata": metadata });
        let query = "dryRun=All&fieldValidation=Strict&fieldManager=testkit&force=true";
        let path = format!("{}?{query}", path_of(&object)?);
        self.request(Method::PATCH, &path, APPLY, yaml.to_owned()).await
    }

    /// Creates an object, which costs the server less than [`apply`](Self::apply).
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses; with its message.
    pub async fn create(&self, object: &Value) -> io::Result<Value> {
        let path = path_of(object)?;
        let folder = path.rsplit_once('/').map_or(path.as_str(), |(folder, _)| folder);
        self.request(Method::POST, folder, JSON, object.to_string()).await
    }

    /// Replaces an object.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses; with its message.
    pub async fn replace(&self, object: &Value) -> io::Result<Value> {
        self.request(Method::PUT, &path_of(object)?, JSON, object.to_string()).await
    }

    /// Removes an object. Success if there is none.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses; with its message.
    pub async fn delete(&self, object: &Value) -> io::Result<()> {
        match self.request(Method::DELETE, &path_of(object)?, JSON, String::new()).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads the object or the list at a path.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses; with its message.
    pub async fn get(&self, path: &str) -> io::Result<Value> {
        self.request(Method::GET, path, JSON, String::new()).await
    }

    /// Creates a namespace.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses; with its message.
    pub async fn namespace(&self, name: &str) -> io::Result<()> {
        let metadata = json!({ "name": name });
        self.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }))
            .await?;
        Ok(())
    }

    /// Creates a service account, and a token of it that ends with a secret.
    ///
    /// It is no longer accepted some 10 s after [`revoke`](Self::revoke) of the same name.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses; with its message.
    pub async fn token(&self, namespace: &str, account: &str, secret: &str) -> io::Result<String> {
        self.apply(&plain("ServiceAccount", namespace, account)).await?;
        self.apply(&plain("Secret", namespace, secret)).await?;
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let bound = json!({ "apiVersion": "v1", "kind": "Secret", "name": secret });
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": { "boundObjectRef": bound, "expirationSeconds": 3600 },
        });
        let answer = self.request(Method::POST, &path, JSON, request.to_string()).await?;
        Ok(text(&answer, "/status/token")?.to_owned())
    }

    /// Ends the tokens that were made with this secret.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses; with its message.
    pub async fn revoke(&self, namespace: &str, secret: &str) -> io::Result<()> {
        self.delete(&plain("Secret", namespace, secret)).await
    }

    /// Lets a service account list and watch the slices of its namespace.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses; with its message.
    pub async fn allow(&self, namespace: &str, account: &str) -> io::Result<()> {
        for object in role(namespace, account) {
            self.apply(&object).await?;
        }
        Ok(())
    }

    /// Takes away what [`allow`](Self::allow) has given.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses; with its message.
    pub async fn forbid(&self, namespace: &str, account: &str) -> io::Result<()> {
        for object in role(namespace, account) {
            self.delete(&object).await?;
        }
        Ok(())
    }

    /// Returns how many lists of a resource the server has answered.
    ///
    /// A resource is `"endpointslices"`.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses; with its message.
    pub async fn n_lists(&self, resource: &str) -> io::Result<u64> {
        let metrics = self.send(Method::GET, "/metrics", JSON, String::new()).await?;
        let metrics = String::from_utf8_lossy(&metrics);
        let resource = format!("resource=\"{resource}\"");
        let counted = |line: &&str| {
            line.starts_with("apiserver_request_total{")
                && line.contains(&resource)
                && line.contains("verb=\"LIST\"")
        };
        let count = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok());
        Ok(metrics.lines().filter(counted).filter_map(count).sum())
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: String,
    ) -> io::Result<Value> {
        let body = self.send(method, path, content, body).await?;
        // The probes' answer is a word.
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: String,
    ) -> io::Result<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, content)
            .body(Bytes::from(body))
            .map_err(io::Error::other)?;
        let response = self.http.send(request, TIMEOUT, MAX_BODY).await;
        let response = response.map_err(io::Error::other)?;
        let (status, body) = (response.status(), response.into_body());
        if status.is_success() {
            return Ok(body);
        }
        let kind = match status.as_u16() {
            403 => io::ErrorKind::PermissionDenied,
            404 => io::ErrorKind::NotFound,
            _ => io::ErrorKind::Other,
        };
        Err(io::Error::new(kind, format!("{path}: {status}: {}", String::from_utf8_lossy(&body))))
    }
}

fn plain(kind: &str, namespace: &str, name: &str) -> Value {
    let metadata = json!({ "namespace": namespace, "name": name });
    json!({ "apiVersion": "v1", "kind": kind, "metadata": metadata })
}

/// A role of the account's own, and its binding.
fn role(namespace: &str, account: &str) -> [Value; 2] {
    let metadata = json!({ "namespace": namespace, "name": format!("{account}-slices") });
    let group = "rbac.authorization.k8s.io";
    let slices = json!({
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["list", "watch"],
    });
    let subject = json!({ "kind": "ServiceAccount", "name": account, "namespace": namespace });
    let version = format!("{group}/v1");
    let bound = json!({ "apiGroup": group, "kind": "Role", "name": metadata["name"] });
    [
        json!({ "apiVersion": version, "kind": "Role", "metadata": metadata, "rules": [slices] }),
        json!({
            "apiVersion": version,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": bound,
            "subjects": [subject],
        }),
    ]
}

/// Where an object is.
fn path_of(object: &Value) -> io::Result<String> {
    let version = text(object, "/apiVersion")?;
    let root = if version.contains('/') { "/apis" } else { "/api" };
    let kind = text(object, "/kind")?.to_lowercase();
    let name = text(object, "/metadata/name")?;
    let namespace = match text(object, "/metadata/namespace") {
        Ok(namespace) => format!("/namespaces/{namespace}"),
        Err(_) => String::new(),
    };
    Ok(format!("{root}/{version}{namespace}/{kind}s/{name}"))
}

fn text<'a>(object: &'a Value, pointer: &str) -> io::Result<&'a str> {
    let text = object.pointer(pointer).and_then(Value::as_str);
    text.ok_or_else(|| io::Error::other(format!("no text {pointer} in {object}")))
}

const JSON: &str = "application/json";
/// JSON is YAML.
const APPLY: &str = "application/apply-patch+yaml";
/// Of a server that starts on a busy machine, too.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_BODY: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_is_where_its_kind_and_its_namespace_are() {
        let path = path_of(&plain("ServiceAccount", "shop", "orders")).expect("complete");
        assert_eq!(path, "/api/v1/namespaces/shop/serviceaccounts/orders");
        let path = path_of(&role("shop", "orders")[1]).expect("complete");
        let root = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop";
        assert_eq!(path, format!("{root}/rolebindings/orders-slices"));
        path_of(&json!({ "kind": "Namespace" })).expect_err("no version");
    }
}
