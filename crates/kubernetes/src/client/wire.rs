//! Requests to the API server: address, token, bounds.

use bytes::Bytes;
use http::{
    HeaderMap, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, USER_AGENT},
};
use serde::de::DeserializeOwned;
use tokio::{sync::SemaphorePermit, time::timeout};
use tower_sd_core::{Error, ErrorKind, Result};
use tower_sd_net::{HttpBody, HttpClient, HttpClientErrorKind, TlsClient, retry_after};
use url::{Position, Url};

use super::{
    credentials::{Credentials, Token},
    turns::Turns,
};
use crate::{
    BACKEND, KubernetesConfig,
    config::{Endpoint, refuse},
    error::{self, FOLLOW, Refused, Status},
};

/// The API server, and how to use it.
#[derive(Debug)]
pub(crate) struct Wire {
    /// A list that gets no answer is no reason to close the connection of all watches.
    lists: HttpClient,
    watches: HttpClient,
    /// Slow lists delay no watch.
    list_turns: Turns,
    watch_turns: Turns,
    /// Of the namespace's slices.
    base: Url,
    credentials: Credentials,
    pub(super) config: KubernetesConfig,
}

/// A request that has failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The position is no longer there.
    Expired,
    /// The response is longer than its bound.
    TooLong(Error),
    Other(Error),
}

impl Wire {
    pub(super) fn new(config: KubernetesConfig) -> Result<Self> {
        config.validate()?;
        let Endpoint { mut base, target } = config.endpoint()?;
        let tls = TlsClient::for_scheme(base.scheme(), config.tls.as_ref())?;
        let client = || HttpClient::builder(target.clone()).tls(tls.clone()).build();
        let (lists, watches) = (client()?, client()?);
        match base.path_segments_mut() {
            Ok(mut segments) => segments
                .pop_if_empty()
                .extend(["apis", "discovery.k8s.io", "v1", "namespaces"])
                .extend([&config.namespace, "endpointslices"]),
            Err(()) => return Err(refuse("server: takes no path")),
        };
        base.set_query(None);
        base.set_fragment(None);
        let credentials = Credentials::new(&config)?;
        let (list_turns, watch_turns) = (Turns::new(), Turns::new());
        Ok(Self { lists, watches, list_turns, watch_turns, base, credentials, config })
    }

    /// Reads a page of a list, of at most `max_body` bytes.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        query: &[(&'static str, String)],
        max_body: usize,
    ) -> Result<T, Failure> {
        let path = self.base.path();
        let mut token = self.credentials.current().await?;
        let mut answer = self.list_as(query, &token, max_body).await?;
        if answer.0 == StatusCode::UNAUTHORIZED
            && let Some(replacement) = self.credentials.replacement(&token).await?
        {
            token = replacement;
            answer = self.list_as(query, &token, max_body).await?;
        }
        let (status, headers, body) = answer;
        if status != StatusCode::OK {
            return Err(self.refused("list", status, &headers, &body, &token));
        }
        serde_json::from_slice(&body).map_err(|cause| {
            let message = format!("{path}: the list is not as an API server writes it");
            error::garbled(message).with_source(cause).into()
        })
    }

    /// Starts a watch; returns its body, and the token that was accepted.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn watch(
        &self,
        query: &[(&'static str, String)],
    ) -> Result<(HttpBody, Token), Failure> {
        let mut token = self.credentials.current().await?;
        let mut answer = self.watch_as(query, &token).await?;
        if answer.0 == StatusCode::UNAUTHORIZED
            && let Some(replacement) = self.credentials.replacement(&token).await?
        {
            token = replacement;
            answer = self.watch_as(query, &token).await?;
        }
        let (status, headers, mut body) = answer;
        if status == StatusCode::OK {
            return Ok((body, token));
        }
        let text = timeout(self.config.timeout, body.collect(MAX_STATUS)).await;
        let text = text.ok().and_then(Result::ok).unwrap_or_default();
        Err(self.refused("watch", status, &headers, &text, &token))
    }

    /// The error of a `Status` that is an event of a watch.
    pub(super) fn ended(&self, mut status: Status, token: &Token) -> Failure {
        status.message = token.hidden_in(status.message);
        self.failure("watch", status)
    }

    async fn list_as(
        &self,
        query: &[(&'static str, String)],
        token: &Token,
        max_body: usize,
    ) -> Result<(StatusCode, HeaderMap, Bytes), Failure> {
        let request = self.request(query, token)?;
        let _turn = self.turn(&self.list_turns).await?;
        let answer = self.lists.send(request, self.config.timeout, max_body).await;
        self.list_turns.ended(answer.is_ok());
        let (head, body) = answer
            .map_err(|cause| {
                let is_long = cause.kind() == HttpClientErrorKind::TooLong;
                let error = error::unanswered(self.base.path(), cause);
                if is_long { Failure::TooLong(error) } else { Failure::Other(error) }
            })?
            .into_parts();
        Ok((head.status, head.headers, body))
    }

    async fn watch_as(
        &self,
        query: &[(&'static str, String)],
        token: &Token,
    ) -> Result<(StatusCode, HeaderMap, HttpBody), Failure> {
        let request = self.request(query, token)?;
        let _turn = self.turn(&self.watch_turns).await?;
        let answer = self.watches.stream(request, self.config.timeout).await;
        self.watch_turns.ended(answer.is_ok());
        let answer = answer.map_err(|cause| error::unanswered(self.base.path(), cause))?;
        let (head, body) = answer.into_parts();
        Ok((head.status, head.headers, body))
    }

    async fn turn<'a>(&self, turns: &'a Turns) -> Result<SemaphorePermit<'a>> {
        let bound = self.config.timeout;
        turns.next(bound).await.ok_or_else(|| {
            let message =
                format!("{}: other requests had no answer within {bound:?}", self.base.path());
            Error::new(ErrorKind::Timeout, BACKEND, FOLLOW).with_message(message)
        })
    }

    fn request(&self, query: &[(&'static str, String)], token: &Token) -> Result<Request<Bytes>> {
        let mut url = self.base.clone();
        url.query_pairs_mut().extend_pairs(query);
        let mut request = Request::get(&url[Position::BeforePath..])
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("tower-sd/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = token.header()? {
            request = request.header(AUTHORIZATION, authorization);
        }
        request
            .body(Bytes::new())
            .map_err(|cause| refuse("the request cannot be made").with_source(cause))
    }

    fn refused(
        &self,
        verb: &'static str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        token: &Token,
    ) -> Failure {
        let mut answer = Status::parse(status.as_u16(), body);
        answer.message = token.hidden_in(answer.message);
        if let Some(after) = retry_after(headers) {
            answer.retry_after(after.as_secs());
        }
        self.failure(verb, answer)
    }

    fn failure(&self, verb: &'static str, status: Status) -> Failure {
        if status.is_expired() {
            return Failure::Expired;
        }
        let namespace = &self.config.namespace;
        let request = Refused { verb, path: self.base.path(), namespace };
        Failure::Other(status.into_error(request))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// A `Status` is a few hundred bytes.
const MAX_STATUS: usize = 64 << 10;
