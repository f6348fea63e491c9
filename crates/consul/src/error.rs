//! The one table from what Consul answers to what a caller can do about it.

use std::time::Duration;

use tower_sd_core::{Error, ErrorKind, clipped};
use tower_sd_net::{HttpClientError, HttpClientErrorKind, kind_of_status};

use crate::BACKEND;

/// The error for an answer whose status is no success. `detail` is the body, without secrets.
pub(crate) fn refused(operation: &'static str, status: u16, detail: &str) -> Error {
    let (kind, hint) = class_of(status, detail);
    let detail = clipped(detail.trim());
    let code = status.to_string();
    // The page that Go's server has for what it does not know starts with the status too.
    let answer = match detail.strip_prefix(&code) {
        Some(rest) if rest.is_empty() || rest.starts_with(' ') => detail.to_owned(),
        _ => format!("{code} {detail}"),
    };
    let message = if hint.is_empty() { answer } else { format!("{answer}: {hint}") };
    Error::new(kind, BACKEND, operation).with_message(message)
}

/// The error for a request to `address` that got no complete answer within `elapsed`.
pub(crate) fn unanswered(
    operation: &'static str,
    address: &str,
    elapsed: Duration,
    cause: HttpClientError,
) -> Error {
    // No address has a user or a query in it, see `ConsulConfig::endpoint`.
    let error = Error::new(cause.kind().into(), BACKEND, operation);
    let message = match cause.kind() {
        HttpClientErrorKind::Request => "the request cannot be made".to_owned(),
        HttpClientErrorKind::Timeout => format!("no answer from {address} in time"),
        HttpClientErrorKind::Connect => {
            let error = error.with_message(format!("the agent cannot be reached: {cause}"));
            return cause.into_cause().into_iter().fold(error, Error::with_source);
        }
        HttpClientErrorKind::Body => format!("{address} closed the connection amid its answer"),
        HttpClientErrorKind::TooLong => "the answer is longer than max_body".to_owned(),
        HttpClientErrorKind::Tls => cause.to_string(),
        _ => closed(address, elapsed),
    };
    error.with_message(message).with_source(cause)
}

/// A connection that ended before an answer.
fn closed(address: &str, elapsed: Duration) -> String {
    let what = format!(
        "{address} closed the connection before an answer: the agent stopped or is restarting"
    );
    match elapsed < TURNED_AWAY_WITHIN {
        true => format!(
            "{what}; or this is no HTTP port of Consul (8500, not 8600); or, in old versions, this machine holds more \
             connections than limits.http_max_conns_per_client (200)"
        ),
        false => format!("{what}, or this is no HTTP port of Consul (8500, not 8600)"),
    }
}

/// The error for an answer with status 200 that cannot be parsed.
pub(crate) fn garbled(operation: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Protocol, BACKEND, operation).with_message(message)
}

/// The error for a wrong setting.
pub(crate) fn config(operation: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, BACKEND, operation).with_message(message)
}

/// Whether the agent has no such TTL check: 500 from 1.8.7, 404 from 1.15.4.
pub(crate) fn is_unknown_check(status: u16, detail: &str) -> bool {
    matches!(status, 404 | 500)
        && (detail.contains("does not have associated TTL") || detail.contains("Unknown check"))
}

/// Whether the agent has no such service: 1.8.7 answers 500 under ACLs (and 200 without),
/// 1.15.4 404.
pub(crate) fn is_unknown_service(status: u16, detail: &str) -> bool {
    matches!(status, 404 | 500)
        && (detail.contains("Unknown service") || detail.contains("unknown service"))
}

fn class_of(status: u16, detail: &str) -> (ErrorKind, &'static str) {
    let kind = match status {
        // The agent found the datacenter's servers, and they refused.
        500 if detail.contains("Permission denied") || detail.contains("ACL not found") => {
            ErrorKind::Denied
        }
        500 if is_bad_filter(detail) => ErrorKind::Config,
        _ => kind_of_status(status),
    };
    let hint = match (kind, status) {
        (ErrorKind::Denied, _) => {
            "give a token that may do this (service:write to register, service:read and node:read to follow)"
        }
        (_, 300..=399) => "redirects are not followed; give the address they lead to",
        (_, 404) if detail.contains("page not found") => "is this a Consul agent?",
        (_, 429) => {
            "the agent limits its clients (limits.http_max_conns_per_client, limits.request_limits)"
        }
        (ErrorKind::Config, 500) => "correct the filter",
        _ => "",
    };
    (kind, hint)
}

/// Both versions answer 500 for an expression that go-bexpr cannot parse or that names no field.
fn is_bad_filter(detail: &str) -> bool {
    detail.contains("Failed to create boolean expression evaluator")
        || detail.contains("failed to parse expression")
}

/// An agent that has too many connections accepts one more and closes it immediately.
const TURNED_AWAY_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// (status, body, kind, transient)
    const ROWS: &[(u16, &str, ErrorKind, bool)] = &[
        (301, "", ErrorKind::Config, false),
        (400, "Missing service name", ErrorKind::Config, false),
        (401, "proxy refuses", ErrorKind::Denied, false),
        (403, "ACL not found", ErrorKind::Denied, false),
        (403, "Permission denied", ErrorKind::Denied, false),
        (404, "Invalid URL path", ErrorKind::NotFound, false),
        (405, "method POST not allowed", ErrorKind::Config, false),
        (408, "", ErrorKind::Timeout, true),
        (429, "rate limit exceeded", ErrorKind::Unavailable, true),
        (500, "No cluster leader", ErrorKind::Unavailable, true),
        (500, "No path to datacenter", ErrorKind::Unavailable, true),
        (500, "rpc error making call: Permission denied", ErrorKind::Denied, false),
        (500, "rpc error making call: ACL not found", ErrorKind::Denied, false),
        (500, "Failed to create boolean expression evaluator: 1:6", ErrorKind::Config, false),
        (502, "<html>", ErrorKind::Unavailable, true),
        (503, "resolver error: produced zero addresses", ErrorKind::Unavailable, true),
    ];

    #[test]
    fn every_row_of_the_table_has_its_kind() {
        for (status, body, kind, transient) in ROWS {
            let error = refused("follow", *status, body);
            let found = (error.kind(), error.is_transient());
            assert_eq!(found, (*kind, *transient), "{status} {body}");
        }
    }

    /// The three forms in which two versions report it, with and without ACLs.
    #[test]
    fn unknown_check_is_recognised_in_every_form() {
        assert!(is_unknown_check(500, r#"CheckID "x" does not have associated TTL"#));
        assert!(is_unknown_check(500, r#"Unknown check "x""#));
        assert!(is_unknown_check(404, r#"Unknown check ID "x". Ensure that …"#));
        assert!(!is_unknown_check(500, "No cluster leader"));
        assert!(!is_unknown_check(404, "404 page not found"));
    }

    #[test]
    fn unknown_service_is_recognised_in_every_form() {
        assert!(is_unknown_service(500, r#"Unknown service {"x" {}}"#));
        assert!(is_unknown_service(404, r#"Unknown service ID "x". Ensure that …"#));
        assert!(is_unknown_service(404, "unknown service ID: x"));
        assert!(!is_unknown_service(500, "No cluster leader"));
    }

    #[test]
    fn page_of_a_proxy_is_clipped_between_characters() {
        let error = refused("follow", 502, &"é".repeat(10_000));
        assert!(error.to_string().len() < 400, "{}", error.to_string().len());
    }

    #[test]
    fn server_that_is_no_agent_is_reported_with_its_status_once() {
        let error = refused("register", 404, "404 page not found\n").to_string();
        assert_eq!(error, "consul register: 404 page not found: is this a Consul agent?");
    }

    #[test]
    fn limit_of_connections_is_named_only_where_it_is_plausible() {
        let says = |elapsed| closed("h:1", elapsed);
        let (early, late) = (says(Duration::from_millis(9)), says(Duration::from_secs(9)));
        assert!(early.contains("http_max_conns_per_client"), "{early}");
        assert!(!late.contains("http_max_conns_per_client"), "{late}");
        for text in [early, late] {
            assert!(
                text.starts_with("h:1 closed the connection before an answer: the agent stopped")
            );
        }
    }

    #[test]
    fn denial_names_what_the_token_must_be_allowed() {
        let error = refused("register", 403, "Permission denied");
        assert!(error.to_string().contains("service:write"), "{error}");
    }
}
