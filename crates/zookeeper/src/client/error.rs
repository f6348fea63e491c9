use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tower_sd_net::TlsFailure;

use super::jute::Malformed;

/// Why a request has failed.
#[derive(Clone, Debug, Error)]
pub(crate) enum ClientError {
    /// The server refuses it.
    #[error("the server's answer is {0:?}")]
    Refused(Refusal),
    /// Sent, and the connection broke before the answer: it may have taken effect.
    #[error("the connection broke before the answer: {0}")]
    Unanswered(Arc<Self>),
    /// Not sent: there is no connection.
    #[error("no connection: {0}")]
    Unconnected(Arc<Self>),
    /// No answer within this time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Larger than the limit of requests, and not sent.
    #[error("a request of {n_bytes} bytes is more than {limit} (the servers' jute.maxbuffer)")]
    RequestTooLarge { n_bytes: usize, limit: usize },
    /// Larger than the limit of answers.
    #[error("an answer of {n_bytes} bytes is more than max_reply, {limit}")]
    ReplyTooLarge { n_bytes: usize, limit: usize },
    /// The server accepts reads alone, because it has lost its ensemble.
    #[error("the server is read-only")]
    ReadOnly,
    #[error("{0}")]
    Dial(Arc<tower_sd_net::DialError>),
    #[error("{server}: {error}")]
    At { server: Arc<str>, error: Arc<Self> },
    #[error("the server has closed the connection")]
    Closed,
    #[error("{0}")]
    Io(Arc<std::io::Error>),
    /// The TLS handshake has failed behind its first half: the client certificate is refused.
    #[error("{0}")]
    Tls(Arc<TlsFailure>),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The credentials cannot be read.
    #[error("{0}")]
    Settings(tower_sd_core::Error),
    /// The task of the session has ended.
    #[error("the session's task has ended")]
    Ended,
}

/// An error code of ZooKeeper, `KeeperException.Code` there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    NoNode,
    NodeExists,
    BadVersion,
    NoAuth,
    AuthFailed,
    NotEmpty,
    NoChildrenForEphemerals,
    InvalidAcl,
    BadArguments,
    SessionExpired,
    SessionMoved,
    EphemeralOnLocalSession,
    SaslRequired,
    QuotaExceeded,
    Other(i32),
}

impl Refusal {
    pub(super) fn of(code: i32) -> Self {
        match code {
            -8 => Self::BadArguments,
            -101 => Self::NoNode,
            -102 => Self::NoAuth,
            -103 => Self::BadVersion,
            -108 => Self::NoChildrenForEphemerals,
            -110 => Self::NodeExists,
            -111 => Self::NotEmpty,
            -112 => Self::SessionExpired,
            -114 => Self::InvalidAcl,
            -115 => Self::AuthFailed,
            -118 => Self::SessionMoved,
            -120 => Self::EphemeralOnLocalSession,
            -124 => Self::SaslRequired,
            -125 => Self::QuotaExceeded,
            other => Self::Other(other),
        }
    }
}

impl ClientError {
    /// The server's refusal, if it is one.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(*refusal),
            _ => None,
        }
    }

    /// Whether a repetition is refused as well.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::At { error, .. } => error.is_permanent(),
            Self::Refused(refusal) => {
                matches!(refusal, Refusal::AuthFailed | Refusal::SaslRequired)
            }
            Self::Tls(_) => true,
            _ => false,
        }
    }

    /// Whether the request has certainly changed nothing.
    pub(crate) fn is_without_effect(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unconnected(_) | Self::RequestTooLarge { .. })
    }

    /// The same of a request whose effect is unknown.
    pub(super) fn unanswered(&self) -> Self {
        Self::Unanswered(Arc::new(self.clone()))
    }

    /// The same of a request that was not sent.
    pub(super) fn unconnected(&self) -> Self {
        Self::Unconnected(Arc::new(self.clone()))
    }

    pub(super) fn at(self, server: &Arc<str>) -> Self {
        Self::At { server: Arc::clone(server), error: Arc::new(self) }
    }
}

impl From<std::io::Error> for ClientError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<tower_sd_net::DialError> for ClientError {
    fn from(error: tower_sd_net::DialError) -> Self {
        Self::Dial(Arc::new(error))
    }
}
