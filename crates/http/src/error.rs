use std::{error, fmt, sync::Arc};

use tower_sd::{BoxError, Unsent};

/// Why an exchange with one instance failed.
///
/// [`is_unsent`](Self::is_unsent) is what a retry asks first: such a request reached no server, and may be sent again
/// whatever its method. `Display` prints this level only; the cause is behind [`source`](error::Error::source).
#[derive(Debug)]
pub struct HttpError {
    kind: HttpErrorKind,
    address: Arc<str>,
    source: BoxError,
}

/// The reason why several requests failed at once.
#[derive(Clone, Debug)]
pub(crate) struct SharedCause(Arc<BoxError>);

/// How far the exchange had come.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The response had begun, and its body ended before its time.
    Body,
    /// No connection: refused, unreachable, or not within the bound.
    Connect,
    /// The connection broke, or the answer was no HTTP, after the request may have reached the server.
    Exchange,
    /// The request's URI says `https`, and the endpoint speaks no TLS: nothing was sent.
    Insecure,
    /// The connection closed before the request was written to it, or the server said, as HTTP/2 lets it, that it has
    /// not looked at it.
    Unsent,
}

impl HttpError {
    pub(crate) fn new(
        kind: HttpErrorKind,
        address: &Arc<str>,
        source: impl Into<BoxError>,
    ) -> Self {
        // `Retry` looks for the mark in the chain of sources.
        let source = match kind {
            HttpErrorKind::Connect | HttpErrorKind::Unsent => Unsent::new(source).into(),
            HttpErrorKind::Body | HttpErrorKind::Exchange | HttpErrorKind::Insecure => {
                source.into()
            }
        };
        Self { kind, address: Arc::clone(address), source }
    }

    /// Looks for one in `error` and in what caused it: a layer may have wrapped it.
    #[must_use]
    pub fn find<'e>(error: &'e (dyn error::Error + 'static)) -> Option<&'e Self> {
        std::iter::successors(Some(error), |error| error.source())
            .find_map(|error| error.downcast_ref())
    }

    /// How far the exchange had come.
    #[must_use]
    pub fn kind(&self) -> HttpErrorKind {
        self.kind
    }

    /// Whether the request certainly reached no server.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        match self.kind {
            HttpErrorKind::Connect | HttpErrorKind::Unsent => true,
            HttpErrorKind::Body | HttpErrorKind::Exchange | HttpErrorKind::Insecure => false,
        }
    }

    /// The instance's `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        match self.kind {
            HttpErrorKind::Body => write!(f, "the response of {address} was cut short"),
            HttpErrorKind::Connect => write!(f, "no connection to {address}"),
            HttpErrorKind::Exchange => write!(f, "the exchange with {address} broke off"),
            HttpErrorKind::Insecure => {
                write!(f, "a request for https is not sent to {address} in the clear")
            }
            HttpErrorKind::Unsent => {
                write!(f, "{address} did not take the request")
            }
        }
    }
}

impl error::Error for HttpError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        let source: &(dyn error::Error + 'static) = &*self.source;
        Some(source)
    }
}

impl SharedCause {
    pub(crate) fn new(cause: impl Into<BoxError>) -> Self {
        Self(Arc::new(cause.into()))
    }
}

impl fmt::Display for SharedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl error::Error for SharedCause {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source()
    }
}
