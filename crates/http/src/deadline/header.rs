//! What a request's headers report of its deadline.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use tokio::time::Instant;
use tower_sd_balance::CallerDeadline;

use super::grpc_timeout;

/// The time that is left, in whole milliseconds: Envoy's header between its proxies.
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// A header that is no duration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    // Not gRPC-Web, whose responses have no trailers.
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The deadline of a request that has arrived now, if it has one.
///
/// Over gRPC it bounds the stream too; over HTTP a client may have meant the head alone.
pub(crate) fn read(
    headers: &HeaderMap,
    is_grpc: bool,
) -> Result<Option<CallerDeadline>, Malformed> {
    let name = if is_grpc { grpc_timeout::NAME } else { TIMEOUT };
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_binary| Malformed)?;
    let left = match is_grpc {
        true => grpc_timeout::parse(text),
        false => milliseconds(text),
    };
    // Beyond what a clock counts there is no deadline.
    let at = Instant::now().checked_add(left.ok_or(Malformed)?);
    let deadline = if is_grpc { CallerDeadline::new } else { CallerDeadline::to_head };
    Ok(at.map(deadline))
}

/// Replaces the header by what is left until `at`.
///
/// A header that was received and passed on is of the past. It is 1 at least, because Envoy reads 0
/// as a time without bound.
pub(crate) fn write(headers: &mut HeaderMap, at: Instant) {
    let left = at.saturating_duration_since(Instant::now());
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    headers.insert(TIMEOUT, HeaderValue::from(left));
}

fn milliseconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let n = is_number.then(|| text.parse().unwrap_or(u64::MAX))?;
    Some(Duration::from_millis(n))
}
