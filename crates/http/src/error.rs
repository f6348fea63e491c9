use std::{error, fmt, sync::Arc};

use tower_sd_balance::{BoxError, FailureClass, NotSent, Outcome, causes};

use crate::HeadersTooLarge;

/// Why an exchange with one instance failed.
///
/// [`is_not_sent`](Self::is_not_sent) decides a retry: such a request reached no server, and may be
/// sent again whatever its method. `Display` prints this level only; the cause is behind
/// [`source`](error::Error::source).
#[derive(Debug)]
pub struct HttpError {
    kind: HttpErrorKind,
    address: Arc<str>,
    source: BoxError,
}

/// The common reason of several failed requests.
#[derive(Clone, Debug)]
pub(crate) struct SharedCause(Arc<BoxError>);

/// How far the exchange had come.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The response had begun, and its body ended before its time.
    Body,
    /// The response had begun, and no part of its body arrived within
    /// [`read_timeout`](crate::HttpFactory::read_timeout), or its end not by the deadline of the
    /// request.
    BodyTimeout,
    /// No connection: refused, unreachable, or not within the bound.
    Connect,
    /// The connection broke, or the answer was no HTTP, after the request may have reached the
    /// server.
    Io,
    /// The headers or trailers of the response exceed the limit of the factory; see
    /// [`HeadersTooLarge`].
    Headers,
    /// The request's URI is `https`, and the endpoint has no TLS: nothing was sent.
    TlsRequired,
    /// The request cannot be sent as it is, or its body failed on the way: a failure of the caller,
    /// and none of the instance.
    Request,
    /// The connection closed before the request was written to it, or the server reported, as
    /// HTTP/2 allows, that it has not read the request.
    NotSent,
    /// The head of the response did not come within a timeout of the HTTP client's own, which
    /// reqwest has: the request may have reached the server.
    Timeout,
}

impl HttpError {
    pub(crate) fn new(
        kind: HttpErrorKind,
        address: &Arc<str>,
        source: impl Into<BoxError>,
    ) -> Self {
        // For callers that search the mark; retries go by the kind.
        let source = match kind {
            HttpErrorKind::Connect | HttpErrorKind::NotSent => NotSent::new(source).into(),
            _ => source.into(),
        };
        Self { kind, address: Arc::clone(address), source }
    }

    /// Searches one in `error` and in its sources: a layer may have wrapped it.
    pub fn find<'e>(error: &'e (dyn error::Error + 'static)) -> Option<&'e Self> {
        causes(error).find_map(|error| error.downcast_ref())
    }

    /// How far the exchange had come.
    pub fn kind(&self) -> HttpErrorKind {
        self.kind
    }

    /// Whether the request certainly reached no server.
    pub fn is_not_sent(&self) -> bool {
        matches!(self.kind, HttpErrorKind::Connect | HttpErrorKind::NotSent)
    }

    /// Whether it was not sent because the server has ended its connection regularly.
    ///
    /// That is HTTP/2's GOAWAY with NO_ERROR, by which servers recycle their connections (RFC 9113
    /// §6.8).
    pub fn is_going_away(&self) -> bool {
        let is_regular =
            |error: &h2::Error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        self.kind == HttpErrorKind::NotSent
            && causes(&*self.source).any(|it| it.downcast_ref().is_some_and(is_regular))
    }

    /// Whether the caller has failed, and not the instance.
    ///
    /// Repeating the request fails again, and the instance's statistics should not count it.
    pub fn is_callers(&self) -> bool {
        matches!(self.kind, HttpErrorKind::TlsRequired | HttpErrorKind::Request)
    }

    /// What it is to the statistics of the instance.
    pub fn outcome(&self) -> Outcome {
        match self.kind {
            HttpErrorKind::Connect | HttpErrorKind::NotSent => Outcome::NotSent,
            HttpErrorKind::TlsRequired | HttpErrorKind::Request => Outcome::Cancelled,
            HttpErrorKind::BodyTimeout | HttpErrorKind::Timeout => Outcome::TimedOut,
            HttpErrorKind::Body | HttpErrorKind::Io | HttpErrorKind::Headers => {
                Outcome::Failed(FailureClass::Exchange)
            }
        }
    }

    /// The sizes, when the headers of the response were too large.
    pub fn headers_too_large(&self) -> Option<&HeadersTooLarge> {
        self.source.downcast_ref()
    }

    /// The instance's `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        match self.kind {
            HttpErrorKind::Body => write!(f, "the response of {address} was cut short"),
            HttpErrorKind::BodyTimeout => write!(f, "the response of {address} stalled"),
            HttpErrorKind::Connect => write!(f, "no connection to {address}"),
            HttpErrorKind::Io => write!(f, "the exchange with {address} broke off"),
            HttpErrorKind::Headers => write!(f, "the headers of {address} are too large"),
            HttpErrorKind::TlsRequired => {
                write!(f, "a request for https is not sent to {address} in the clear")
            }
            HttpErrorKind::Request => write!(f, "the request to {address} failed at its sender"),
            HttpErrorKind::NotSent => write!(f, "{address} did not take the request"),
            HttpErrorKind::Timeout => write!(f, "{address} did not respond in time"),
        }
    }
}

impl fmt::Display for HttpErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Body => "body cut short",
            Self::BodyTimeout => "body timed out",
            Self::Connect => "connect failed",
            Self::Io => "exchange broken",
            Self::Headers => "headers too large",
            Self::TlsRequired => "TLS required",
            Self::Request => "request failed at its sender",
            Self::NotSent => "not sent",
            Self::Timeout => "timed out",
        })
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
