//! A small HTTP client of one registry, over hyper.

mod body;
mod client;
mod connect;
mod error;
mod versions;

pub use self::{
    body::HttpBody,
    client::{HttpClient, HttpClientBuilder},
    error::{HttpClientError, HttpClientErrorKind},
    versions::HttpVersions,
};

use std::time::Duration;

use http::{HeaderMap, header::RETRY_AFTER};
use tower_sd_core::ErrorKind;

/// Returns the kind of error that an HTTP status stands for.
///
/// A registry may give some statuses another meaning.
pub fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        408 => ErrorKind::Timeout,
        429 => ErrorKind::Unavailable,
        300..=499 => ErrorKind::Config,
        _ => ErrorKind::Unavailable,
    }
}

/// Returns the pause that a server requests in seconds (RFC 9110 §10.2.3).
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
