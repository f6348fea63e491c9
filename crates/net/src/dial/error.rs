use std::{error, fmt, net::SocketAddr, time::Duration};

use tower_sd_core::BoxError;

/// A connection that could not be made.
///
/// `Display` names the target, and each address where there are several; the operating system's
/// reason is behind [`source`](error::Error::source).
#[derive(Debug)]
pub struct DialError {
    kind: DialErrorKind,
    target: String,
    detail: Option<String>,
    source: Option<BoxError>,
}

/// The class of a [`DialError`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum DialErrorKind {
    /// No address accepted the connection.
    Connect,
    /// The host's addresses are denied by the address policy.
    Denied,
    /// The host has no addresses, or none could be found out.
    Resolve,
    /// No connection within the connect timeout.
    Timeout,
    /// An address accepted, and the TLS handshake failed.
    Tls,
}

/// The failure of one address.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) address: Option<SocketAddr>,
    pub(super) kind: DialErrorKind,
    pub(super) cause: BoxError,
}

impl DialError {
    fn new(kind: DialErrorKind, target: impl fmt::Display) -> Self {
        Self { kind, target: target.to_string(), detail: None, source: None }
    }

    /// The error of a race without a winner; a failed handshake has come farthest.
    pub(super) fn of(target: impl fmt::Display, mut failures: Vec<Failure>) -> Self {
        let is_tls = |failure: &Failure| failure.kind == DialErrorKind::Tls;
        let worst = failures.iter().position(is_tls).unwrap_or(0);
        let kind = failures.get(worst).map_or(DialErrorKind::Resolve, |failure| failure.kind);
        Self::new(kind, target).because(&mut failures, worst)
    }

    /// The error of a race that had no winner in time.
    pub(super) fn timeout(
        target: impl fmt::Display,
        timeout: Duration,
        mut failures: Vec<Failure>,
    ) -> Self {
        let error = Self::new(DialErrorKind::Timeout, target).because(&mut failures, 0);
        let detail = error.detail.map(|detail| format!("; {detail}")).unwrap_or_default();
        Self { detail: Some(format!("within {timeout:?}{detail}")), ..error }
    }

    fn because(mut self, failures: &mut Vec<Failure>, first: usize) -> Self {
        if failures.len() > 1 {
            let each = failures.iter().map(|failure| match failure.address {
                Some(address) => format!("{address}: {}", failure.cause),
                None => failure.cause.to_string(),
            });
            self.detail = Some(each.collect::<Vec<_>>().join("; "));
        }
        if first < failures.len() {
            self.source = Some(failures.swap_remove(first).cause);
        }
        self
    }

    /// The class of the error.
    pub fn kind(&self) -> DialErrorKind {
        self.kind
    }
}

impl fmt::Display for DialErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect failed",
            Self::Denied => "address denied",
            Self::Resolve => "not resolved",
            Self::Timeout => "timed out",
            Self::Tls => "TLS handshake failed",
        })
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = &self.target;
        match self.kind {
            DialErrorKind::Connect => write!(f, "cannot connect to {target}")?,
            DialErrorKind::Denied => write!(f, "address of {target} denied")?,
            DialErrorKind::Resolve => write!(f, "cannot resolve {target}")?,
            DialErrorKind::Timeout => write!(f, "no connection to {target}")?,
            DialErrorKind::Tls => write!(f, "TLS handshake with {target} failed")?,
        }
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl error::Error for DialError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        let source: &(dyn error::Error + 'static) = &**self.source.as_ref()?;
        Some(source)
    }
}
