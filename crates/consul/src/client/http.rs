//! Requests and answers as HTTP: address, token, bounds.

use std::time::Duration;

use reqwest::{
    Client, Method, Url,
    header::{HeaderMap, HeaderValue},
    redirect,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use serde::Serialize;
use tower_sd_core::{Error, Result, Secret};

use super::error;
use crate::ConsulConfig;

/// One agent, and how to talk to it.
#[derive(Debug)]
pub(super) struct Wire {
    http: Client,
    base: Url,
    config: ConsulConfig,
}

/// One request.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) operation: &'static str,
    pub(super) method: Method,
    pub(super) path: Vec<&'a str>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) timeout: Duration,
}

/// A complete answer, of any status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    operation: &'static str,
    token: Option<Secret>,
}

impl<'a> Call<'a> {
    pub(super) fn get(operation: &'static str, path: &[&'a str]) -> Self {
        Self {
            operation,
            method: Method::GET,
            path: path.to_vec(),
            query: Vec::new(),
            body: None,
            timeout: CALL_TIMEOUT,
        }
    }

    pub(super) fn put(operation: &'static str, path: &[&'a str]) -> Self {
        Self {
            method: Method::PUT,
            ..Self::get(operation, path)
        }
    }

    pub(super) fn json(self, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body).map_err(|cause| {
            error::config(self.operation, "the request cannot be written as JSON")
                .with_source(cause)
        })?;
        Ok(Self {
            body: Some(body),
            ..self
        })
    }
}

impl Wire {
    pub(super) fn new(config: ConsulConfig) -> Result<Self> {
        let base = config.base_url()?;
        let http = Client::builder()
            .tls_backend_preconfigured(tls()?)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(TCP_KEEPALIVE)
            .build()
            .map_err(|cause| error::config("connect", "no HTTP client").with_source(cause))?;
        Ok(Self { http, base, config })
    }

    /// Sends, and reads the whole answer. Dropped early, the connection is closed: a blocking query ends with it.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let operation = call.operation;
        let mut request = self
            .http
            .request(call.method, self.url(&call.path, &call.query)?)
            .timeout(call.timeout);
        if let Some(token) = self.token()? {
            request = request.header("X-Consul-Token", token);
        }
        if let Some(body) = call.body {
            request = request
                .header("Content-Type", "application/json")
                .body(body);
        }
        let unanswered = |cause| error::unanswered(operation, cause);
        let mut response = request.send().await.map_err(unanswered)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unanswered)? {
            if body.len() + chunk.len() > self.config.max_body {
                let max = self.config.max_body;
                return Err(error::garbled(
                    operation,
                    format!("the answer is longer than max_body = {max} bytes"),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status: response.status().as_u16(),
            headers: std::mem::take(response.headers_mut()),
            body,
            operation,
            token: self.config.token.clone(),
        })
    }

    fn url(&self, path: &[&str], query: &[(&'static str, String)]) -> Result<Url> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().push("v1").extend(path),
            Err(()) => return Err(error::config("connect", "the address takes no path")),
        };
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    fn token(&self) -> Result<Option<HeaderValue>> {
        let Some(token) = &self.config.token else {
            return Ok(None);
        };
        let mut value = HeaderValue::from_str(token.expose()).map_err(|cause| {
            error::config(
                "connect",
                "the token has characters that no header can hold",
            )
            .with_source(cause)
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as text, for errors: without the token, should somebody echo it.
    pub(super) fn detail(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        match &self.token {
            Some(token) if !token.expose().is_empty() => text.replace(token.expose(), "***"),
            _ => text.into_owned(),
        }
    }

    /// The error for it.
    pub(super) fn refused(&self) -> Error {
        error::refused(self.operation, self.status, &self.detail())
    }
}

/// With a provider of its own: reqwest panics without one.
fn tls() -> Result<ClientConfig> {
    let provider = std::sync::Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| error::config("connect", "no TLS").with_source(cause))?;
    Ok(builder
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

/// The agent is on this machine or next to it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a quorum an agent takes 7 to 14 s to accept a registration. The loops have bounds of their own.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Half of the shortest idle time after which firewalls are known to forget a connection.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
