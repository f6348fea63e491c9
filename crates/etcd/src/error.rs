//! One table from errors of the wire to their kinds.

use std::{error::Error as _, fmt};

use tonic::{Code, Status};
use tower_sd_core::{Error, ErrorKind, clipped};
use tower_sd_net::TlsFailure;

use crate::BACKEND;

/// A call that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: ErrorKind,
    transient: bool,
    pub(crate) remedy: Remedy,
    source: Option<etcd_client::Error>,
    message: Option<String>,
    /// The member that got the request.
    endpoint: Option<String>,
}

/// What tonic made of a broken connection: its own `Display` dumps the causes, which follow as
/// sources anyway.
#[derive(Debug)]
struct Broken(Status);

/// What the client does about a failure before it passes it on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Remedy {
    /// The member or the way to it is at fault: use the next one.
    NextMember,
    /// The token is no longer accepted: authenticate and try again.
    Authenticate,
    /// Nothing: the answer stands.
    None,
}

impl Failure {
    fn new(kind: ErrorKind, message: String) -> Self {
        let (transient, remedy) = match kind {
            ErrorKind::Config => (false, Remedy::None),
            _ => (true, Remedy::NextMember),
        };
        Self { kind, transient, remedy, source: None, message: Some(message), endpoint: None }
    }

    pub(crate) fn timeout(bound: std::time::Duration) -> Self {
        Self::new(ErrorKind::Timeout, format!("no answer within {bound:?}"))
    }

    /// A setting that cannot be used now: a password file that cannot be read.
    pub(crate) fn of_settings(error: &Error) -> Self {
        Self::new(ErrorKind::Config, error.chain().to_string())
    }

    /// A token that is no text.
    pub(crate) fn of_token(_error: http::header::InvalidHeaderValue) -> Self {
        let text = "the token of the answer has characters which no header may have";
        etcd_client::Error::GRpcStatus(Status::new(Code::Unknown, text)).into()
    }

    /// A stream has been silent, although it was probed.
    pub(crate) fn silent(silence: std::time::Duration) -> Self {
        let message = format!("the watch stream is silent for {} s", silence.as_secs());
        Self::new(ErrorKind::Timeout, message)
    }

    pub(crate) fn is_transient(&self) -> bool {
        self.transient
    }

    pub(crate) fn is_timeout(&self) -> bool {
        self.kind == ErrorKind::Timeout
    }

    /// The other side has ended a stream.
    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Unavailable, "the stream was closed".to_owned())
    }

    /// A watch was canceled; there is no code, only the text of one.
    pub(crate) fn of_cancel(reason: &str) -> Self {
        let code = match reason {
            _ if reason.contains("permission denied") => Code::PermissionDenied,
            _ if reason.contains("auth token") => Code::Unauthenticated,
            _ if reason.contains("user name is empty") || reason.contains("auth store is old") => {
                Code::InvalidArgument
            }
            _ => Code::Unavailable,
        };
        etcd_client::Error::GRpcStatus(Status::new(code, reason)).into()
    }

    /// The server has no such lease: it has expired or was revoked.
    pub(crate) fn is_lease_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// The requested revision is gone, or (after the cluster was wiped) has not been yet.
    pub(crate) fn is_revision_gone(&self) -> bool {
        self.is_out_of_range("revision")
    }

    /// One message is larger than the limit; tonic itself reports it.
    pub(crate) fn is_message_too_large(&self) -> bool {
        self.is_out_of_range("length too large")
    }

    fn is_out_of_range(&self, text: &str) -> bool {
        self.status().is_some_and(|it| it.code() == Code::OutOfRange) && self.has_text(text)
    }

    /// As [`into_error`](Self::into_error), of a call that carried a value of so many bytes.
    pub(crate) fn of_value(self, n_bytes: usize, operation: &'static str) -> Error {
        if !self.is_request_too_large() {
            return self.into_error(operation);
        }
        let message = format!(
            "{}: a value of {n_bytes} bytes is more than the server accepts (1.5 MiB a request unless \
             its --max-request-bytes differs); shorten tags and metadata",
            self.member()
        );
        Error::new(ErrorKind::Config, BACKEND, operation).with_message(message)
    }

    /// etcd refuses a request above `--max-request-bytes`, and gRPC one that is larger still.
    fn is_request_too_large(&self) -> bool {
        self.has_text("request is too large") || self.has_text("received message larger than max")
    }

    fn status(&self) -> Option<&Status> {
        match &self.source {
            Some(etcd_client::Error::GRpcStatus(status)) => Some(status),
            _ => None,
        }
    }

    fn has_text(&self, text: &str) -> bool {
        self.status().is_some_and(|status| status.message().contains(text))
    }

    /// What is no reason to stop trying.
    pub(crate) fn worth_repeating(self) -> Self {
        Self { transient: true, ..self }
    }

    pub(crate) fn into_error(self, operation: &'static str) -> Error {
        let error = Error::new(self.kind, BACKEND, operation);
        let error = match self.transient {
            true => error.transient(),
            false => error.permanent(),
        };
        let error = error.with_message(self.text());
        match self.source {
            Some(etcd_client::Error::TransportError(cause)) => error.with_source(cause),
            Some(etcd_client::Error::IoError(cause)) => error.with_source(cause),
            Some(etcd_client::Error::GRpcStatus(status)) if status.source().is_some() => {
                error.with_source(Broken(status))
            }
            // The text has it all.
            Some(etcd_client::Error::GRpcStatus(_)) | None => error,
            Some(source) => error.with_source(source),
        }
    }

    /// Gives the reason in words, where more is known than the failure itself has.
    pub(crate) fn because(mut self, reason: &str) -> Self {
        self.message.get_or_insert_with(|| reason.to_owned());
        self
    }

    /// Names the member of the call.
    pub(crate) fn at(mut self, endpoint: &str) -> Self {
        self.endpoint.get_or_insert_with(|| endpoint.to_owned());
        self
    }

    /// An endpoint with a user in it is refused by the configuration.
    fn member(&self) -> &str {
        self.endpoint.as_deref().unwrap_or("the member")
    }

    fn text(&self) -> String {
        use etcd_client::Error as Wire;
        let member = self.member();
        match (&self.message, &self.source) {
            (Some(message), _) => format!("{member}: {message}"),
            (None, Some(Wire::TransportError(cause))) => of_broken(member, cause),
            (None, Some(Wire::IoError(cause))) => of_broken(member, cause),
            (None, Some(Wire::GRpcStatus(status))) => match status.source() {
                Some(cause) => of_broken(member, cause),
                None if status.message().contains("grpc-status header missing") => {
                    format!("{member}: {NO_ETCD}")
                }
                None => format!("{member} says: {}", clipped(status.message())),
            },
            (None, Some(other)) => format!("{member}: {other}"),
            (None, None) => format!("{member}: failed"),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(clipped(self.0.message()))
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Describes a connection that could not be made, or broke.
fn of_broken(member: &str, cause: &(dyn std::error::Error + 'static)) -> String {
    if let Some(failure) = TlsFailure::find(cause) {
        return format!("{member}: {failure}");
    }
    format!("{member} cannot be reached, or closed the connection")
}

impl From<tonic::transport::Error> for Failure {
    fn from(error: tonic::transport::Error) -> Self {
        etcd_client::Error::TransportError(error).into()
    }
}

impl From<etcd_client::Error> for Failure {
    fn from(error: etcd_client::Error) -> Self {
        use etcd_client::Error as Wire;
        let (kind, transient, remedy) = match &error {
            Wire::GRpcStatus(status) => of_status(status),
            Wire::TransportError(_) | Wire::IoError(_) | Wire::WatchError(_) => UNREACHABLE,
            Wire::LeaseKeepAliveError(_) => (ErrorKind::NotFound, false, Remedy::None),
            Wire::InvalidArgs(_) | Wire::InvalidUri(_) | Wire::InvalidMetadataValue(_) => WRONG,
            _ => (ErrorKind::Protocol, true, Remedy::NextMember),
        };
        Self { kind, transient, remedy, source: Some(error), message: None, endpoint: None }
    }
}

/// The rows are `etcd:api/v3rpc/rpctypes/error.go`, and what tonic makes of a broken connection.
fn of_status(status: &Status) -> Verdict {
    let says = |text| status.message().contains(text);
    match status.code() {
        Code::Unauthenticated => STALE_TOKEN,
        Code::InvalidArgument if says("user name is empty") || says("auth store is old") => {
            STALE_TOKEN
        }
        Code::InvalidArgument if says("authentication failed") => DENIED,
        Code::InvalidArgument => WRONG,
        Code::PermissionDenied => DENIED,
        Code::NotFound => (ErrorKind::NotFound, false, Remedy::None),
        Code::FailedPrecondition if says("learner") => UNREACHABLE,
        Code::FailedPrecondition if says("lease already exists") => {
            (ErrorKind::Conflict, false, Remedy::None)
        }
        Code::FailedPrecondition => WRONG,
        Code::OutOfRange if says("TTL") => WRONG,
        Code::OutOfRange => (ErrorKind::Protocol, true, Remedy::None),
        Code::DeadlineExceeded => (ErrorKind::Timeout, true, Remedy::NextMember),
        // The database is full, or too many requests: another member returns the same.
        Code::ResourceExhausted => (ErrorKind::Unavailable, true, Remedy::None),
        Code::Unimplemented => (ErrorKind::Protocol, true, Remedy::NextMember),
        _ => UNREACHABLE,
    }
}

pub(crate) const NO_ETCD: &str = "the server does not serve etcd's gRPC; give the address at which etcd serves its clients (port 2379)";

type Verdict = (ErrorKind, bool, Remedy);
const UNREACHABLE: Verdict = (ErrorKind::Unavailable, true, Remedy::NextMember);
const STALE_TOKEN: Verdict = (ErrorKind::Denied, true, Remedy::Authenticate);
const DENIED: Verdict = (ErrorKind::Denied, false, Remedy::None);
const WRONG: Verdict = (ErrorKind::Config, false, Remedy::None);

#[cfg(test)]
mod tests;
