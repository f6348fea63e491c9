use std::{error::Error, fmt};

use http::{StatusCode, uri::Authority};
use tower_sd_balance::{
    Attempt, BoxError, Elapsed, InstanceId, NoInstances, NoInstancesReason, Outcome, Overloaded,
    RetryError, causes,
};

use crate::{HttpError, HttpErrorKind};

/// A request of a [`Client`](super::Client) has failed.
///
/// It names the service, each attempt with its instance, and the cause. `Display` prints all of
/// that in one line; `source()` is the error of the last attempt.
#[derive(Debug)]
pub struct ClientError {
    service: Option<Authority>,
    error: BoxError,
}

/// Why a request has failed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ClientErrorKind {
    /// An instance failed, or its response did, and no further attempt was allowed.
    Failed,
    /// There is no instance that accepts requests; nothing was sent, by any attempt.
    NoInstances(NoInstancesReason),
    /// Too many requests are in flight by the [limits](tower_sd_balance::Limits); nothing was sent.
    Overloaded,
    /// The request cannot be sent as it is, or its body failed on the way.
    Request,
    /// The time for the attempt or for the whole request was over.
    Timeout,
}

impl ClientError {
    /// `error` of a request to `service`; an error that a layer has passed on stays itself.
    pub(crate) fn new(service: Option<Authority>, error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(same) => *same,
            Err(error) => Self { service, error },
        }
    }

    /// Why it has failed.
    pub fn kind(&self) -> ClientErrorKind {
        if let Some(none) = self.find::<NoInstances>().filter(|_| !self.was_sent()) {
            return ClientErrorKind::NoInstances(none.reason());
        }
        if self.find::<Overloaded>().is_some() {
            return ClientErrorKind::Overloaded;
        }
        if self.retry().is_some_and(RetryError::is_deadline) || self.find::<Elapsed>().is_some() {
            return ClientErrorKind::Timeout;
        }
        match self.find::<HttpError>() {
            // reqwest connects with the request in hand, and has no instance that it waits for.
            Some(error) if error.kind() == HttpErrorKind::Connect && !self.was_sent() => {
                ClientErrorKind::NoInstances(NoInstancesReason::Refused)
            }
            Some(error) if error.is_callers() => ClientErrorKind::Request,
            Some(error) if error.outcome() == Outcome::TimedOut => ClientErrorKind::Timeout,
            _ => ClientErrorKind::Failed,
        }
    }

    /// Whether an attempt before the last may have reached an instance.
    fn was_sent(&self) -> bool {
        self.attempts().iter().any(|attempt| {
            let http = HttpError::find(&**attempt.error());
            attempt.instance().is_some() && !http.is_some_and(HttpError::is_not_sent)
        })
    }

    /// The service: host and port of the request's URI.
    pub fn service(&self) -> Option<&str> {
        self.service.as_ref().map(Authority::as_str)
    }

    /// The instance of the last attempt. `None` when no instance got the request.
    pub fn instance(&self) -> Option<&InstanceId> {
        self.attempts().last()?.instance()
    }

    /// The attempts in order. Empty when a layer has failed before the first.
    pub fn attempts(&self) -> &[Attempt] {
        self.retry().map_or(&[], RetryError::attempts)
    }

    /// The status with which a gateway should answer its own client.
    ///
    /// 503 without instances and when overloaded, 504 after a timeout, 400 when the request itself
    /// cannot be sent, otherwise 502 (RFC 9110 §15.5.1 and §15.6).
    pub fn status(&self) -> StatusCode {
        match self.kind() {
            ClientErrorKind::Failed => StatusCode::BAD_GATEWAY,
            ClientErrorKind::NoInstances(_) | ClientErrorKind::Overloaded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ClientErrorKind::Request => StatusCode::BAD_REQUEST,
            ClientErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn retry(&self) -> Option<&RetryError> {
        self.find()
    }

    /// Searches the chain of errors.
    fn find<E: Error + 'static>(&self) -> Option<&E> {
        causes(&*self.error).find_map(|error| error.downcast_ref())
    }
}

impl fmt::Display for ClientErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("failed"),
            Self::NoInstances(reason) => write!(f, "no instances: {reason}"),
            Self::Overloaded => f.write_str("too many requests in flight"),
            Self::Request => f.write_str("request failed at its sender"),
            Self::Timeout => f.write_str("timed out"),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{service}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
