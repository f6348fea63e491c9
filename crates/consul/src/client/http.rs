//! Requests and answers as HTTP: address, token, bounds.

use std::{
    fs,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde::Serialize;
use tokio::{sync::Semaphore, time::Instant};
use tower_sd_core::{Error, Result, Secret};
use tower_sd_net::{HttpClient, HttpVersions, TlsClient};
use url::{Position, Url};

use super::{error, streams::Streams};
use crate::{ConsulConfig, config::Endpoint};

/// One agent, and how to talk to it.
#[derive(Debug)]
pub(crate) struct Wire {
    /// For registrations and heartbeats, each on a connection that is given up with a call that gets no answer.
    http: HttpClient,
    pub(super) streams: Streams,
    base: Url,
    token: RwLock<Option<Secret>>,
    /// Short calls that run at once: blocking queries need none. Heartbeats have permits of their own, so that thousands of
    /// them do not keep a registration waiting.
    permits: Semaphore,
    heartbeats: Semaphore,
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
    pub(super) kind: Kind,
}

/// How a call shares the agent's connections with others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Waits for a change.
    Blocking,
    /// Reads what is followed.
    Read,
    Heartbeat,
    Short,
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
            kind: Kind::Short,
        }
    }

    pub(super) fn put(operation: &'static str, path: &[&'a str]) -> Self {
        Self { method: Method::PUT, ..Self::get(operation, path) }
    }

    pub(super) fn json(self, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body).map_err(|cause| {
            error::config(self.operation, "the request cannot be written as JSON")
                .with_source(cause)
        })?;
        Ok(Self { body: Some(body), ..self })
    }
}

impl Wire {
    pub(super) fn new(config: ConsulConfig) -> Result<Self> {
        let Endpoint { base, target } = config.endpoint()?;
        let tls = match base.scheme() {
            "https" => Some(TlsClient::new(config.tls.clone().unwrap_or_default())),
            _ => None,
        };
        let tls = tls.transpose().map_err(|cause| {
            error::config("configure", "tls: unusable settings").with_source(cause)
        })?;
        let client = |versions| {
            HttpClient::builder(target.clone()).tls(tls.clone()).versions(versions).build()
        };
        let http = client(HttpVersions::Http1)?;
        let streams = Streams::new(tls.is_some(), || client(HttpVersions::Http2OrHttp1))?;
        let token = token_of(&config)?;
        header(token.as_ref())?;
        Ok(Self {
            http,
            streams,
            base,
            token: RwLock::new(token),
            permits: Semaphore::new(MAX_SHORT_CALLS),
            heartbeats: Semaphore::new(MAX_HEARTBEATS),
            config,
        })
    }

    /// Sends, and reads the whole answer. Dropped early, the connection is closed: a blocking query ends with it.
    ///
    /// Denied, it looks for a new token, and tries once more with that.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Answer> {
        // The semaphores are never closed.
        let _permit = match call.kind {
            Kind::Blocking => None,
            Kind::Heartbeat => self.heartbeats.acquire().await.ok(),
            Kind::Read | Kind::Short => self.permits.acquire().await.ok(),
        };
        let token = self.token();
        let answer = self.send_as(&call, token.as_ref()).await?;
        if matches!(answer.status, 401 | 403) && self.config.token_file.is_some() {
            let fresh = token_of(&self.config)?;
            if fresh != token {
                *self.token.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
                return self.send_as(&call, fresh.as_ref()).await;
            }
        }
        Ok(answer)
    }

    async fn send_as(&self, call: &Call<'_>, token: Option<&Secret>) -> Result<Answer> {
        let operation = call.operation;
        let place = matches!(call.kind, Kind::Blocking | Kind::Read).then(|| self.streams.place());
        let http = place.as_ref().map_or(&self.http, |place| &place.http);
        let request = self.request(call, token)?;
        let sent_at = Instant::now();
        let sent = http.send(request, call.timeout, self.config.max_body).await;
        let (head, body) = sent
            .map_err(|cause| {
                error::unanswered(operation, &self.config.address, sent_at.elapsed(), cause)
            })?
            .into_parts();
        if place.is_some() {
            self.streams.heard(head.version);
        }
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.into(),
            operation,
            token: token.cloned(),
        })
    }

    fn request(&self, call: &Call<'_>, token: Option<&Secret>) -> Result<Request<Bytes>> {
        let url = self.url(call)?;
        let mut request = Request::builder().method(&call.method).uri(&url[Position::BeforePath..]);
        if let Some(token) = header(token)? {
            request = request.header("X-Consul-Token", token);
        }
        if let Some((user, password)) = &self.config.basic_auth {
            let credentials = STANDARD.encode(format!("{user}:{}", password.expose()));
            request =
                request.header(AUTHORIZATION, secret_header(&format!("Basic {credentials}"))?);
        }
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = call.body.clone().unwrap_or_default().into();
        request.body(body).map_err(|cause| {
            error::config(call.operation, "the request cannot be made").with_source(cause)
        })
    }

    fn url(&self, call: &Call<'_>) -> Result<Url> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().push("v1").extend(&call.path),
            Err(()) => return Err(error::config("configure", "the address takes no path")),
        };
        let ConsulConfig { datacenter, namespace, partition, .. } = &self.config;
        // An agent is where it is: it registers in no other datacenter.
        let datacenter = datacenter.as_ref().filter(|_| call.method == Method::GET);
        // Community agents refuse the last two, whatever they say.
        let everywhere =
            [("dc", datacenter), ("ns", namespace.as_ref()), ("partition", partition.as_ref())];
        let everywhere = everywhere.into_iter().filter_map(|(key, value)| Some((key, value?)));
        for (key, value) in everywhere.chain(call.query.iter().map(|(key, value)| (*key, value))) {
            url.query_pairs_mut().append_pair(key, value);
        }
        Ok(url)
    }

    pub(super) fn config(&self) -> &ConsulConfig {
        &self.config
    }

    /// The datacenter that is asked instead of the agent's own.
    pub(super) fn datacenter(&self) -> Option<&str> {
        self.config.datacenter.as_deref()
    }

    pub(super) fn token(&self) -> Option<Secret> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The file's token, or the one given where there is no file or nothing in it.
pub(crate) fn token_of(config: &ConsulConfig) -> Result<Option<Secret>> {
    let Some(file) = &config.token_file else {
        return Ok(config.token.clone());
    };
    let text = fs::read_to_string(file).map_err(|cause| {
        error::config("configure", format!("token_file: cannot read {file:?}")).with_source(cause)
    })?;
    Ok(match text.trim() {
        "" => config.token.clone(),
        token => Some(Secret::new(token)),
    })
}

fn header(token: Option<&Secret>) -> Result<Option<HeaderValue>> {
    let Some(token) = token.filter(|token| !token.expose().is_empty()) else {
        return Ok(None);
    };
    secret_header(token.expose()).map(Some)
}

fn secret_header(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|cause| {
        error::config("configure", "the token has characters that no header can hold")
            .with_source(cause)
    })?;
    value.set_sensitive(true);
    Ok(value)
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

/// An agent accepts 200 connections of one address by default, and up to twice as many are opened as there are requests
/// at once.
const MAX_SHORT_CALLS: usize = 24;
const MAX_HEARTBEATS: usize = 32;
/// Without a quorum an agent takes 7 to 14 s to accept a registration. The loops have bounds of their own.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
