//! Bounds of what a server may send besides its body.

use std::{error, fmt};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The headers or trailers of a response exceeded
/// [`max_header_size`](crate::HttpFactory::max_header_size).
///
/// Carries what remains known: the status, and the fields that are short.
#[derive(Clone, Debug)]
pub struct HeadersTooLarge {
    size: Option<usize>,
    limit: usize,
    status: Option<StatusCode>,
    short: HeaderMap,
}

impl HeadersTooLarge {
    /// Of a head or trailers, if they exceed the limit.
    pub(crate) fn of(status: Option<StatusCode>, headers: &HeaderMap, limit: u32) -> Option<Self> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let size = size(headers);
        if size <= limit {
            return None;
        }
        let short = headers.iter().filter(|(name, value)| entry(name, value) <= SHORT);
        let short = short.take(MAX_SHORT);
        let short = short.map(|(name, value)| (name.clone(), value.clone())).collect();
        Some(Self { size: Some(size), limit, status, short })
    }

    /// Of a head that was not read to its end.
    pub(crate) fn unread(limit: usize) -> Self {
        Self { size: None, limit, status: None, short: HeaderMap::new() }
    }

    /// The size in bytes as HTTP/2 counts it (RFC 9113 §6.5.2), if it was read.
    pub fn size(&self) -> Option<usize> {
        self.size
    }

    /// The status of the response, if it was read; trailers have none.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// The fields of up to 256 bytes: a gRPC status code is among them.
    pub fn short_fields(&self) -> &HeaderMap {
        &self.short
    }
}

impl fmt::Display for HeadersTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit;
        match self.size {
            Some(size) => write!(f, "{size} bytes exceed the limit of {limit} (max_header_size)"),
            None => {
                write!(f, "more than {limit} fields, or than fit the buffer (max_http1_headers)")
            }
        }?;
        self.status.map_or(Ok(()), |status| write!(f, "; the status is {status}"))
    }
}

impl error::Error for HeadersTooLarge {}

/// RFC 9113 §6.5.2.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| entry(name, value)).sum()
}

fn entry(name: &HeaderName, value: &HeaderValue) -> usize {
    name.as_str().len() + value.len() + 32
}

const SHORT: usize = 256;

const MAX_SHORT: usize = 64;
