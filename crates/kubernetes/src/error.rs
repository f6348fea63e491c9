//! The one table from the answers of an API server to errors.

use std::time::Duration;

use serde::Deserialize;
use tower_sd_core::{Error, ErrorKind, clipped};
use tower_sd_net::{HttpClientError, kind_of_status};

use crate::BACKEND;

/// A `Status` of the API: the body of every refusal, and of a watch's last event.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) message: String,
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    #[serde(rename = "retryAfterSeconds")]
    retry_after_seconds: u64,
}

/// The request that was refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused<'a> {
    /// The verb of RBAC.
    pub(crate) verb: &'static str,
    pub(crate) path: &'a str,
    pub(crate) namespace: &'a str,
}

impl Status {
    /// The `Status` in the body of a response with this HTTP status, as far as there is one.
    pub(crate) fn parse(code: u16, body: &[u8]) -> Self {
        let status = serde_json::from_slice(body).unwrap_or_else(|_| Self {
            message: clipped(String::from_utf8_lossy(body).trim()).to_owned(),
            ..Self::default()
        });
        Self { code, ..status }
    }

    /// Notes the pause that a header requests.
    pub(crate) fn retry_after(&mut self, seconds: u64) {
        self.details.retry_after_seconds = self.details.retry_after_seconds.max(seconds);
    }

    /// Whether the position of a list or watch is no longer there.
    pub(crate) fn is_expired(&self) -> bool {
        self.code == 410 || matches!(self.reason.as_str(), "Expired" | "Gone")
    }

    /// The error for it.
    pub(crate) fn into_error(self, request: Refused<'_>) -> Error {
        let Refused { verb, path, namespace } = request;
        let answer = format!("{path}: status {}", self.code);
        let parts = [&answer, clipped(&self.message), hint_for(self.code)];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let mut message = parts.collect::<Vec<_>>().join(": ");
        if self.code == 403 {
            message.push_str(&format!(
                ": the verb {verb} on endpointslices is missing; apply `kubectl -n {namespace} \
                 create role endpointslice-reader --verb=list,watch \
                 --resource=endpointslices.discovery.k8s.io`, and a RoleBinding of it"
            ));
        }
        let kind = kind_of_status(self.code);
        let error = Error::new(kind, BACKEND, FOLLOW).with_message(message);
        match self.details.retry_after_seconds {
            0 => error,
            seconds => error.with_retry_after(Duration::from_secs(seconds)),
        }
    }
}

/// The error for a request without a complete answer.
pub(crate) fn unanswered(path: &str, cause: HttpClientError) -> Error {
    let message = format!("{path}: {cause}");
    let error = Error::new(cause.kind().into(), BACKEND, FOLLOW).with_message(message);
    match cause.into_cause() {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}

/// The error for an answer that is not as an API server writes it.
pub(crate) fn garbled(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Protocol, BACKEND, FOLLOW).with_message(message)
}

/// The error for a wrong setting.
pub(crate) fn config(operation: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, BACKEND, operation).with_message(message)
}

fn hint_for(status: u16) -> &'static str {
    match status {
        300..=399 => "redirects are not followed",
        401 => "the token or client certificate is not accepted",
        404 => "EndpointSlices are there since Kubernetes 1.21",
        _ => "",
    }
}

/// The operation of all reads.
pub(crate) const FOLLOW: &str = "follow";
/// The operation of everything that is wrong before a request.
pub(crate) const CONFIGURE: &str = "configure";

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Refused<'_> =
        Refused { verb: "watch", path: "/apis/discovery.k8s.io/v1/x", namespace: "shop" };

    #[test]
    fn denial_names_path_and_status_and_verb_and_role() {
        let body = br#"{"kind":"Status","code":403,"reason":"Forbidden","message":"User \"u\" cannot watch"}"#;
        let error = Status::parse(403, body).into_error(REQUEST);
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Denied, false));
        let text = error.to_string();
        for part in [
            REQUEST.path,
            "status 403",
            "User \"u\" cannot watch",
            "the verb watch",
            "kubectl -n shop create role",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn statuses_have_their_kinds() {
        for (code, kind, transient) in [
            (302, ErrorKind::Config, false),
            (400, ErrorKind::Config, false),
            (401, ErrorKind::Denied, false),
            (404, ErrorKind::NotFound, false),
            (429, ErrorKind::Unavailable, true),
            (500, ErrorKind::Unavailable, true),
            (504, ErrorKind::Unavailable, true),
        ] {
            let error = Status::parse(code, b"").into_error(REQUEST);
            assert_eq!((error.kind(), error.is_transient()), (kind, transient), "{code}");
        }
        let busy = br#"{"message":"slow","details":{"retryAfterSeconds":7}}"#;
        let error = Status::parse(429, busy).into_error(REQUEST);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert!(Status::parse(200, br#"{"reason":"Expired"}"#).is_expired());
    }

    #[test]
    fn page_of_a_proxy_is_clipped_between_characters() {
        let error = Status::parse(502, "é".repeat(10_000).as_bytes()).into_error(REQUEST);
        assert!(error.to_string().len() < 600, "{}", error.to_string().len());
    }
}
