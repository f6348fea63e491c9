//! Requests and answers as HTTP: address, token, bounds.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, Method, Request,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::Semaphore, time::Instant};
use tower_sd_core::{Error, Result, Rotating, Secret};
use tower_sd_net::{HttpClient, HttpVersions, TlsClient, retry_after};
use url::{Position, Url};

use super::{
    streams::Streams,
    token::{Token, header, secret_header, tokens},
};
use crate::{ConsulConfig, config::Endpoint, error};

/// One agent, and how to talk to it.
#[derive(Debug)]
pub(crate) struct Wire {
    /// For registrations and heartbeats, each on a connection that is given up with a call that
    /// gets no answer.
    http: HttpClient,
    pub(super) streams: Streams,
    base: Url,
    tokens: Rotating<Option<Secret>>,
    /// Concurrent short calls: blocking queries need none. Each kind has its own permits: neither
    /// thousands of heartbeats nor of reads keep a registration waiting.
    reads: Semaphore,
    writes: Semaphore,
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

/// How a call shares the agent's connections with others, and whose datacenter it is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Waits for a change.
    Blocking,
    /// Reads what is followed, and reads and writes keys.
    Read,
    /// Reads from the servers what is registered here.
    Verify,
    Heartbeat,
    /// Registers, deregisters, and reads what the agent has.
    Write,
}

/// A complete answer, of any status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    operation: &'static str,
    token: Token,
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
            kind: Kind::Read,
        }
    }

    pub(super) fn put(operation: &'static str, path: &[&'a str]) -> Self {
        Self { method: Method::PUT, kind: Kind::Write, ..Self::get(operation, path) }
    }

    pub(super) fn json(self, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body).map_err(|cause| {
            error::config(self.operation, "the request cannot be written as JSON")
                .with_source(cause)
        })?;
        Ok(Self { body: Some(body), ..self })
    }

    /// A read that is answered at the next change, or after `wait`.
    pub(super) fn blocking(self, wait: Duration) -> Self {
        Self { timeout: wait + wait / 16 + HOLD, kind: Kind::Blocking, ..self }
    }
}

impl Wire {
    pub(super) fn new(config: ConsulConfig) -> Result<Self> {
        let Endpoint { base, target } = config.endpoint()?;
        let tls = TlsClient::for_scheme(base.scheme(), config.tls.as_ref())?;
        let client = |versions| {
            HttpClient::builder(target.clone()).tls(tls.clone()).versions(versions).build()
        };
        let http = client(HttpVersions::Http1)?;
        let streams = Streams::new(tls.is_some(), || client(HttpVersions::Http2OrHttp1))?;
        let tokens = tokens(&config)?;
        Ok(Self {
            http,
            streams,
            base,
            tokens,
            reads: Semaphore::new(MAX_READS),
            writes: Semaphore::new(MAX_WRITES),
            heartbeats: Semaphore::new(MAX_HEARTBEATS),
            config,
        })
    }

    /// Sends, and reads the whole answer. Dropped early, the connection is closed: a blocking query
    /// ends with it.
    ///
    /// After a denial it tries once more, with the file's new token if there is one.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Answer> {
        // The semaphores are never closed.
        let _permit = match call.kind {
            Kind::Blocking => None,
            Kind::Heartbeat => self.heartbeats.acquire().await.ok(),
            Kind::Read | Kind::Verify => self.reads.acquire().await.ok(),
            Kind::Write => self.writes.acquire().await.ok(),
        };
        let answer = self.send_as(&call, self.tokens.current()).await?;
        match answer.status {
            401 | 403 => match self.tokens.replacement(&answer.token) {
                Some(token) => self.send_as(&call, token).await,
                None => Ok(answer),
            },
            _ => Ok(answer),
        }
    }

    async fn send_as(&self, call: &Call<'_>, token: Token) -> Result<Answer> {
        let operation = call.operation;
        let place =
            (!matches!(call.kind, Kind::Heartbeat | Kind::Write)).then(|| self.streams.place());
        let http = place.as_ref().map_or(&self.http, |place| &place.http);
        let request = self.request(call, token.value.as_ref())?;
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
            token,
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
        check_path(call.operation, &call.path)?;
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().push("v1").extend(&call.path),
            Err(()) => return Err(error::config("configure", "the address takes no path")),
        };
        let ConsulConfig { datacenter, namespace, partition, .. } = &self.config;
        // An agent registers where it is.
        let is_read = matches!(call.kind, Kind::Blocking | Kind::Read);
        let datacenter = datacenter.as_ref().filter(|_| is_read);
        // Community agents refuse the last two, whatever their value.
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

    pub(super) fn token(&self) -> Token {
        self.tokens.current()
    }
}

/// Refuses names that make another path than themselves.
///
/// Of a URL tabs and line ends are dropped (WHATWG URL, "basic URL parser"), and agents refuse what
/// cannot be printed (`disable_http_unprintable_char_filter`).
///
/// Servers in Go clean the decoded path: an agent 1.8 redirects `/v1/health/service/a%2F..%2Fb` to
/// the service `b`, and agents of all versions redirect `/v1/health/service/..`.
pub(crate) fn check_path(operation: &'static str, path: &[&str]) -> Result<()> {
    let path = path.join("/");
    if path.contains(char::is_control) {
        return Err(error::config(
            operation,
            format!("{path:?} has control characters, which HTTP drops or agents refuse"),
        ));
    }
    let mut parts = path.strip_suffix('/').unwrap_or(&path).split('/');
    match parts.any(|part| matches!(part, "" | "." | "..")) {
        true => Err(error::config(
            operation,
            format!("{path:?} has an empty part, or one of . or .., which HTTP resolves as a path"),
        )),
        false => Ok(()),
    }
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as a list, of `what`.
    pub(super) fn list<T: DeserializeOwned>(&self, what: &str) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|cause| {
            error::garbled(self.operation, format!("not a list of {what}")).with_source(cause)
        })
    }

    /// The body as text, for errors: without the token, should a server echo it.
    pub(super) fn detail(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        match &self.token.value {
            Some(token) if !token.expose().is_empty() => text.replace(token.expose(), "***"),
            _ => text.into_owned(),
        }
    }

    /// Which of the tokens the request had.
    pub(super) fn token_generation(&self) -> u64 {
        self.token.generation
    }

    /// The error for it.
    pub(super) fn refused(&self) -> Error {
        let error = error::refused(self.operation, self.status, &self.detail());
        // Consul sends none; a proxy in front of it does.
        retry_after(&self.headers).into_iter().fold(error, Error::with_retry_after)
    }
}

/// An agent accepts 200 connections of one address by default, and up to twice as many are opened
/// as there are concurrent requests.
const MAX_READS: usize = 24;
const MAX_WRITES: usize = 16;
const MAX_HEARTBEATS: usize = 32;
/// Without a quorum an agent takes 7 to 14 s to accept a registration. The loops have bounds of
/// their own.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long beyond `wait` and the agent's jitter of a sixteenth an answer may take: the 7 s for
/// which the agent holds a request while there is no leader (`rpc_hold_timeout`), and 5 s for the
/// way.
const HOLD: Duration = Duration::from_secs(12);
