use std::{error, fmt, sync::Arc, time::Duration};

use tower_sd_core::{BoxError, ErrorKind, causes};

use crate::{DialError, DialErrorKind, TlsFailure};

/// A request that got no complete response.
///
/// `Display` names the server; the operating system's reason is behind
/// [`source`](error::Error::source).
#[derive(Debug)]
pub struct HttpClientError {
    kind: HttpClientErrorKind,
    server: Arc<str>,
    detail: Option<String>,
    source: Option<BoxError>,
}

/// The class of an [`HttpClientError`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum HttpClientErrorKind {
    /// The connection ended amid the response.
    Body,
    /// The connection ended before a response.
    Closed,
    /// No connection: refused, unresolved, or not within the connect timeout.
    Connect,
    /// The request cannot be sent: its URI is unusable.
    Request,
    /// No complete response within the timeout.
    Timeout,
    /// The TLS handshake failed, or the server has refused the client's certificate.
    Tls,
    /// The response's body is longer than the bound.
    TooLong,
}

impl From<HttpClientErrorKind> for ErrorKind {
    fn from(kind: HttpClientErrorKind) -> Self {
        match kind {
            HttpClientErrorKind::Request => Self::Config,
            HttpClientErrorKind::Timeout => Self::Timeout,
            HttpClientErrorKind::TooLong => Self::Protocol,
            HttpClientErrorKind::Body
            | HttpClientErrorKind::Closed
            | HttpClientErrorKind::Connect
            | HttpClientErrorKind::Tls => Self::Unavailable,
        }
    }
}

impl HttpClientError {
    pub(super) fn new(kind: HttpClientErrorKind, server: &Arc<str>) -> Self {
        Self { kind, server: Arc::clone(server), detail: None, source: None }
    }

    pub(super) fn with_source(self, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    pub(super) fn timeout(server: &Arc<str>, timeout: Duration) -> Self {
        let detail = Some(format!("{timeout:?}"));
        Self { detail, ..Self::new(HttpClientErrorKind::Timeout, server) }
    }

    pub(super) fn too_long(server: &Arc<str>, max_body: usize) -> Self {
        let detail = Some(format!("{max_body} bytes"));
        Self { detail, ..Self::new(HttpClientErrorKind::TooLong, server) }
    }

    /// The error of a request.
    ///
    /// Its kind is `kind` unless a cause, or the end of the connection, is more precise.
    pub(super) fn of(
        kind: HttpClientErrorKind,
        server: &Arc<str>,
        ended_by: Option<TlsFailure>,
        cause: impl error::Error + Send + Sync + 'static,
    ) -> Self {
        if let Some(failure) = TlsFailure::find(&cause).or(ended_by) {
            let detail = Some(failure.to_string());
            let error = Self { detail, ..Self::new(HttpClientErrorKind::Tls, server) };
            return error.with_source(cause);
        }
        let (kind, detail) = match dialled(&cause) {
            Some(dialled) if dialled.kind() == DialErrorKind::Tls => {
                (HttpClientErrorKind::Tls, None)
            }
            Some(dialled) => (HttpClientErrorKind::Connect, Some(dialled.to_string())),
            None => (kind, None),
        };
        Self { detail, ..Self::new(kind, server) }.with_source(cause)
    }

    /// Returns the causes alone, for an error whose message has this one's text.
    pub fn into_cause(self) -> Option<BoxError> {
        error::Error::source(&self)?;
        Some(Cause(self).into())
    }

    /// The class of the error.
    pub fn kind(&self) -> HttpClientErrorKind {
        self.kind
    }

    /// The server that was to respond.
    pub fn server(&self) -> &str {
        &self.server
    }
}

/// What an [`HttpClientError`] has behind itself.
#[derive(Debug)]
struct Cause(HttpClientError);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        error::Error::source(&self.0).map_or(Ok(()), |cause| fmt::Display::fmt(cause, f))
    }
}

impl error::Error for Cause {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        error::Error::source(&self.0)?.source()
    }
}

/// The error of the dialer among the causes.
fn dialled<'a>(error: &'a (dyn error::Error + 'static)) -> Option<&'a DialError> {
    causes(error).find_map(|error| error.downcast_ref())
}

impl fmt::Display for HttpClientErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Body => "body cut short",
            Self::Closed => "connection closed",
            Self::Connect => "connect failed",
            Self::Request => "request unusable",
            Self::Timeout => "timed out",
            Self::Tls => "TLS failed",
            Self::TooLong => "body too long",
        })
    }
}

impl fmt::Display for HttpClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = &self.server;
        match self.kind {
            HttpClientErrorKind::Body => {
                write!(f, "{server} closed the connection amid a response")?;
            }
            HttpClientErrorKind::Closed => {
                write!(f, "{server} closed the connection before a response")?;
            }
            // The dialer names the server, and each address where there are several.
            HttpClientErrorKind::Connect => {
                return match &self.detail {
                    Some(detail) => f.write_str(detail),
                    None => write!(f, "cannot connect to {server}"),
                };
            }
            HttpClientErrorKind::Request => write!(f, "request for {server} cannot be sent")?,
            HttpClientErrorKind::Timeout => write!(f, "no response from {server} in time")?,
            HttpClientErrorKind::Tls => write!(f, "TLS with {server} failed")?,
            HttpClientErrorKind::TooLong => {
                write!(f, "response of {server} longer than the bound")?;
            }
        }
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl error::Error for HttpClientError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        let source: &(dyn error::Error + 'static) = &**self.source.as_ref()?;
        match self.kind {
            // Its own errors, and the dialer's, repeat the address.
            HttpClientErrorKind::Connect => dialled(source).map_or(Some(source), |it| it.source()),
            _ => Some(source),
        }
    }
}
