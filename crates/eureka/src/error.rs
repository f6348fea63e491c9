//! The one table from the answers of a server to what a caller can do about them.

use tower_sd_core::{Error, ErrorKind, clipped};
use tower_sd_net::{HttpClientError, kind_of_status};

use crate::BACKEND;

/// The error for an answer of `server` whose status is no success.
pub(crate) fn refused(operation: &'static str, server: &str, status: u16, detail: &str) -> Error {
    let kind = match status {
        403 if operation == FOLLOW => ErrorKind::Unavailable,
        _ => kind_of_status(status),
    };
    let answer = format!("{server} answered {status}");
    let parts = [&answer, clipped(detail.trim()), hint_for(operation, status)];
    let message = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    Error::new(kind, BACKEND, operation).with_message(message)
}

/// The error for a request without a complete answer.
pub(crate) fn unanswered(operation: &'static str, cause: HttpClientError) -> Error {
    Error::new(cause.kind().into(), BACKEND, operation)
        .with_message(cause.to_string())
        .with_source(cause)
}

/// The error for an answer with status 200 that cannot be parsed.
pub(crate) fn garbled(operation: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Protocol, BACKEND, operation).with_message(message)
}

/// The error for a 404 that is not of the server.
pub(crate) fn of_a_proxy(operation: &'static str, server: &str) -> Error {
    let message = format!(
        "{server} sent a body that is not Eureka's with status 404: a proxy without its server?"
    );
    Error::new(ErrorKind::Unavailable, BACKEND, operation).with_message(message)
}

/// The error for a wrong setting.
pub(crate) fn config(operation: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, BACKEND, operation).with_message(message)
}

fn hint_for(operation: &'static str, status: u16) -> &'static str {
    match status {
        300..=399 => "redirects are not followed",
        // A server that has started, and found no peer to copy from, refuses reads for 5 min.
        403 if operation == FOLLOW => {
            "the server is not ready for reads, or it does not offer this one"
        }
        401 | 403 => "set the user and password",
        404 => "is the base path right?",
        _ => "",
    }
}

/// The operation of all reads of a set.
pub(crate) const FOLLOW: &str = "follow";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_of_reads_is_transient_and_of_credentials_is_not() {
        for (operation, status, kind, transient) in [
            ("follow", 403, ErrorKind::Unavailable, true),
            ("register", 403, ErrorKind::Denied, false),
            ("follow", 401, ErrorKind::Denied, false),
            ("follow", 302, ErrorKind::Config, false),
            ("register", 400, ErrorKind::Config, false),
            ("follow", 404, ErrorKind::NotFound, false),
            ("renew", 429, ErrorKind::Unavailable, true),
            ("renew", 500, ErrorKind::Unavailable, true),
        ] {
            let error = refused(operation, "h:1", status, "");
            let found = (error.kind(), error.is_transient());
            assert_eq!(found, (kind, transient), "{operation} {status}");
        }
    }

    #[test]
    fn page_of_a_proxy_is_clipped_between_characters() {
        let error = refused("follow", "h:1", 502, &"é".repeat(10_000));
        assert!(error.to_string().len() < 400, "{}", error.to_string().len());
    }
}
