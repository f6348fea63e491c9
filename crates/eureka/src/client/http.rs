//! Requests and answers as HTTP: one server, its address and its bounds.

use std::{io::Read, time::Duration};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{
    HeaderMap, HeaderValue, Method, Request,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE},
};
use serde::de::{DeserializeOwned, IgnoredAny};
use tower_sd_core::{Error, Result};
use tower_sd_net::{HttpClient, HttpVersions, TlsClient, retry_after};
use url::{Position, Url};

use super::credentials::Credentials;
use crate::{EurekaConfig, EurekaServer, config::Endpoint, error};

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    http: HttpClient,
    base: Url,
    /// As `host:port`, for messages.
    pub(super) name: String,
    pub(super) zone: Option<String>,
    timeout: Duration,
    max_body: usize,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    pub(super) operation: &'static str,
    pub(super) method: Method,
    pub(super) path: Vec<&'a str>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Bytes>,
}

/// A complete answer, of any status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    body: Bytes,
    operation: &'static str,
    server: String,
    max_body: usize,
}

impl<'a> Call<'a> {
    pub(super) fn new(operation: &'static str, method: Method, path: &[&'a str]) -> Self {
        Self { operation, method, path: path.to_vec(), query: Vec::new(), body: None }
    }

    pub(super) fn get(operation: &'static str, path: &[&'a str]) -> Self {
        Self::new(operation, Method::GET, path)
    }
}

impl Server {
    pub(super) fn new(server: &EurekaServer, config: &EurekaConfig) -> Result<Self> {
        let Endpoint { base, target } = server.endpoint()?;
        let tls = TlsClient::for_scheme(base.scheme(), config.tls.as_ref())?;
        let name = target.to_string();
        let http = HttpClient::builder(target).tls(tls).versions(HttpVersions::Http1).build()?;
        let EurekaConfig { timeout, max_body, .. } = *config;
        Ok(Self { http, base, name, zone: server.zone.clone(), timeout, max_body })
    }

    /// Sends, and reads the whole answer; after a refusal once more, with a new password if the
    /// file has one.
    ///
    /// # Cancel safety
    ///
    /// The server may have read the request.
    pub(super) async fn send(&self, call: &Call<'_>, credentials: &Credentials) -> Result<Answer> {
        let sent = credentials.current();
        let answer = self.send_as(call, sent.value.clone()).await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        match credentials.replacement(&sent) {
            Some(renewed) => self.send_as(call, renewed.value).await,
            None => Ok(answer),
        }
    }

    async fn send_as(&self, call: &Call<'_>, authorization: Option<HeaderValue>) -> Result<Answer> {
        let operation = call.operation;
        let request = self.request(call, authorization)?;
        let answer = self.http.send(request, self.timeout, self.max_body).await;
        let (head, body) =
            answer.map_err(|cause| error::unanswered(operation, cause))?.into_parts();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            operation,
            server: self.name.clone(),
            max_body: self.max_body,
        })
    }

    fn request(
        &self,
        call: &Call<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Request<Bytes>> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(&call.path),
            Err(()) => return Err(error::config("configure", "the address takes no path")),
        };
        // Tomcat refuses these, which a URL may have.
        let path = url.path().replace('[', "%5B").replace(']', "%5D");
        url.set_path(&path.replace('|', "%7C").replace('^', "%5E"));
        for (name, value) in &call.query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let mut request = Request::builder()
            .method(&call.method)
            .uri(&url[Position::BeforePath..])
            .header(ACCEPT, JSON)
            .header(ACCEPT_ENCODING, "gzip");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, JSON);
        }
        request.body(call.body.clone().unwrap_or_default()).map_err(|cause| {
            error::config(call.operation, "the request cannot be made").with_source(cause)
        })
    }
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// `Err`: the server has refused the request.
    pub(super) fn succeeded(&self) -> Result<()> {
        match self.is_success() {
            true => Ok(()),
            false => Err(self.refused()),
        }
    }

    /// The error that a status other than success is.
    pub(super) fn refused(&self) -> Error {
        let body = self.plain().unwrap_or_default();
        let detail = String::from_utf8_lossy(&body);
        // Tomcat's pages explain nothing.
        let detail = if detail.trim_start().starts_with('<') { "" } else { &*detail };
        let error = error::refused(self.operation, &self.server, self.status, detail);
        retry_after(&self.headers).into_iter().fold(error, Error::with_retry_after)
    }

    /// The error when a success or a 404 has a body that no server of Eureka's sends for JSON.
    ///
    /// A proxy sends a page, or a sentence: it has no server, or a user is to sign in. An unknown
    /// entry has no body, the JSON of Spring's error page, or the page of Netflix's Tomcat.
    pub(super) fn not_eurekas(&self) -> Option<Error> {
        let first = |body: &Bytes| body.trim_ascii_start().first().copied();
        let is_other = || self.plain().is_ok_and(|body| !matches!(first(&body), None | Some(b'{')));
        match self.status {
            404 if is_other() => Some(error::of_a_proxy(self.operation, &self.server)),
            200..=299 if is_other() => self.json::<IgnoredAny>().err(),
            _ => None,
        }
    }

    /// The body as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let body = self.plain()?;
        serde_json::from_slice(&body).map_err(|cause| {
            let is_xml = body.trim_ascii_start().starts_with(b"<");
            let message = match is_xml {
                true => format!(
                    "{} sent XML or HTML although the request has `Accept: {JSON}`; does a proxy drop the header?",
                    self.server
                ),
                false => format!("the answer of {} is not as a Eureka server writes it", self.server),
            };
            error::garbled(self.operation, message).with_source(cause)
        })
    }

    /// The body without its compression, bounded.
    fn plain(&self) -> Result<Bytes> {
        if self.headers.get(CONTENT_ENCODING).is_none_or(|encoding| encoding != "gzip") {
            return Ok(self.body.clone());
        }
        let limit = u64::try_from(self.max_body).unwrap_or(u64::MAX);
        let mut plain = Vec::new();
        let mut decoder = GzDecoder::new(&*self.body).take(limit.saturating_add(1));
        let read = decoder.read_to_end(&mut plain);
        read.map_err(|cause| {
            let message = format!("the answer of {} is not valid gzip", self.server);
            error::garbled(self.operation, message).with_source(cause)
        })?;
        if plain.len() > self.max_body {
            let message = format!("the answer of {} is longer than max_body", self.server);
            return Err(error::garbled(self.operation, message));
        }
        Ok(plain.into())
    }
}

const JSON: &str = "application/json";
