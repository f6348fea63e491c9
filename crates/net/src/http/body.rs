use std::{fmt, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::Extensions;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{
    connect::{EndedBy, Settings},
    error::{HttpClientError, HttpClientErrorKind},
};
use crate::TlsFailure;

/// The body of a response, read as it arrives.
///
/// # Drop
///
/// Ends the response: an HTTP/1.1 connection is closed, an HTTP/2 stream is reset.
pub struct HttpBody {
    pub(super) server: Arc<str>,
    pub(super) settings: Arc<Settings>,
    /// Of the response, with the metadata of its connection.
    pub(super) extensions: Extensions,
    pub(super) body: Incoming,
}

impl HttpBody {
    /// Waits for the next bytes; `None` at the end of the response.
    ///
    /// Nothing bounds the wait: the caller has to.
    ///
    /// # Errors
    ///
    /// The connection ended amid the response.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|cause| {
                let ended_by = EndedBy::found_in(&self.extensions);
                failed(&self.settings, &self.server, HttpClientErrorKind::Body, ended_by, cause)
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Reads all of it.
    ///
    /// The caller bounds the time.
    ///
    /// # Errors
    ///
    /// The connection ended amid the response, or this is longer than `max_body` bytes.
    ///
    /// # Cancel safety
    ///
    /// The bytes read so far are lost.
    pub async fn collect(&mut self, max_body: usize) -> Result<Bytes, HttpClientError> {
        let too_long = |body: &Self| HttpClientError::too_long(&body.server, max_body);
        let announced = usize::try_from(self.body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > max_body {
            return Err(too_long(self));
        }
        // A server's word alone costs no memory.
        let mut bytes = BytesMut::with_capacity(announced.min(64 << 10));
        while let Some(data) = self.chunk().await? {
            if bytes.len() + data.len() > max_body {
                return Err(too_long(self));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    }
}

impl fmt::Debug for HttpBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBody").field("server", &self.server).finish_non_exhaustive()
    }
}

/// The error of a request; a failure of TLS has its files read again.
pub(super) fn failed(
    settings: &Settings,
    server: &Arc<str>,
    kind: HttpClientErrorKind,
    ended_by: Option<TlsFailure>,
    cause: impl std::error::Error + Send + Sync + 'static,
) -> HttpClientError {
    let error = HttpClientError::of(kind, server, ended_by, cause);
    if let (HttpClientErrorKind::Tls, Some(tls)) = (error.kind(), &settings.tls) {
        tls.suspect();
    }
    error
}
