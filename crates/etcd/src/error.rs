//! One table from what the wire says to what it means.

use tonic::{Code, Status};
use tower_sd_core::{Error, ErrorKind};

/// Who is speaking, in errors and logs.
pub(crate) const BACKEND: &str = "etcd";

/// A call that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: ErrorKind,
    transient: bool,
    pub(crate) remedy: Remedy,
    source: Option<etcd_client::Error>,
    message: Option<String>,
}

/// What the client does about a failure before it passes it on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Remedy {
    /// The member or the way to it is at fault: ask the next one.
    NextMember,
    /// The token is no longer accepted: authenticate and ask again.
    Authenticate,
    /// Nothing: the answer stands.
    None,
}

impl Failure {
    pub(crate) fn timeout(bound: std::time::Duration) -> Self {
        Self {
            kind: ErrorKind::Timeout,
            transient: true,
            remedy: Remedy::NextMember,
            source: None,
            message: Some(format!("no answer within {bound:?}")),
        }
    }

    /// The other side has ended a stream.
    pub(crate) fn closed() -> Self {
        Self {
            kind: ErrorKind::Unavailable,
            transient: true,
            remedy: Remedy::NextMember,
            source: None,
            message: Some("the stream was closed".to_owned()),
        }
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

    /// The server knows no such lease: it has expired or was revoked.
    pub(crate) fn is_lease_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// The revision asked for is gone, or (after the cluster was wiped) has not been yet.
    pub(crate) fn is_revision_gone(&self) -> bool {
        match &self.source {
            Some(etcd_client::Error::GRpcStatus(status)) => {
                status.code() == Code::OutOfRange && status.message().contains("revision")
            }
            _ => false,
        }
    }

    pub(crate) fn into_error(self, operation: &'static str) -> Error {
        let error = Error::new(self.kind, BACKEND, operation);
        let error = match self.transient {
            true => error.transient(),
            false => error.permanent(),
        };
        let error = match self.message {
            Some(message) => error.with_message(message),
            None => error,
        };
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
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
        Self {
            kind,
            transient,
            remedy,
            source: Some(error),
            message: None,
        }
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
        // The database is full, or too many requests: another member says the same.
        Code::ResourceExhausted => (ErrorKind::Unavailable, true, Remedy::None),
        Code::Unimplemented => (ErrorKind::Protocol, true, Remedy::NextMember),
        _ => UNREACHABLE,
    }
}

type Verdict = (ErrorKind, bool, Remedy);
const UNREACHABLE: Verdict = (ErrorKind::Unavailable, true, Remedy::NextMember);
const STALE_TOKEN: Verdict = (ErrorKind::Denied, true, Remedy::Authenticate);
const DENIED: Verdict = (ErrorKind::Denied, false, Remedy::None);
const WRONG: Verdict = (ErrorKind::Config, false, Remedy::None);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_as_written() {
        use ErrorKind::{Conflict, Denied, NotFound, Protocol, Timeout, Unavailable};
        let config = ErrorKind::Config;
        let rows = [
            (Code::Unavailable, "etcdserver: no leader", Unavailable, true, Remedy::NextMember),
            (Code::Unavailable, "etcdserver: leader changed", Unavailable, true, Remedy::NextMember),
            (Code::Unavailable, "etcdserver: request timed out", Unavailable, true, Remedy::NextMember),
            (Code::Unavailable, "etcdserver: rpc not supported for learner", Unavailable, true, Remedy::NextMember),
            (Code::FailedPrecondition, "etcdserver: rpc not supported for learner", Unavailable, true, Remedy::NextMember),
            (Code::FailedPrecondition, "etcdserver: lease already exists", Conflict, false, Remedy::None),
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled", config, false, Remedy::None),
            (Code::Unknown, "transport error", Unavailable, true, Remedy::NextMember),
            (Code::Internal, "h2 protocol error", Unavailable, true, Remedy::NextMember),
            (Code::Cancelled, "operation was canceled", Unavailable, true, Remedy::NextMember),
            (Code::DataLoss, "etcdserver: corrupt cluster", Unavailable, true, Remedy::NextMember),
            (Code::DeadlineExceeded, "context deadline exceeded", Timeout, true, Remedy::NextMember),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Unavailable, true, Remedy::None),
            (Code::ResourceExhausted, "etcdserver: too many requests", Unavailable, true, Remedy::None),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Denied, true, Remedy::Authenticate),
            (Code::InvalidArgument, "etcdserver: user name is empty", Denied, true, Remedy::Authenticate),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", Denied, true, Remedy::Authenticate),
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", Denied, false, Remedy::None),
            (Code::InvalidArgument, "etcdserver: request is too large", config, false, Remedy::None),
            (Code::InvalidArgument, "etcdserver: key is not provided", config, false, Remedy::None),
            (Code::PermissionDenied, "etcdserver: permission denied", Denied, false, Remedy::None),
            (Code::NotFound, "etcdserver: requested lease not found", NotFound, false, Remedy::None),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", Protocol, true, Remedy::None),
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision", Protocol, true, Remedy::None),
            (Code::OutOfRange, "etcdserver: too large lease TTL", config, false, Remedy::None),
            (Code::Unimplemented, "unknown service etcdserverpb.KV", Protocol, true, Remedy::NextMember),
        ];
        for (code, message, kind, transient, remedy) in rows {
            let failure = Failure::from(etcd_client::Error::GRpcStatus(Status::new(code, message)));
            assert_eq!(failure.remedy, remedy, "{message}");
            let error = failure.into_error("test");
            assert_eq!(error.kind(), kind, "{message}");
            assert_eq!(error.is_transient(), transient, "{message}");
        }
    }

    #[test]
    fn errors_of_the_client_library_have_rows_too() {
        use etcd_client::Error as Wire;
        let rows = [
            (Wire::LeaseKeepAliveError("lease not found".into()), ErrorKind::NotFound, false),
            (Wire::InvalidArgs("empty endpoints".into()), ErrorKind::Config, false),
            (Wire::WatchError("channel closed".into()), ErrorKind::Unavailable, true),
            (Wire::Internal("who knows".into()), ErrorKind::Protocol, true),
        ];
        for (wire, kind, transient) in rows {
            let error = Failure::from(wire).into_error("test");
            assert_eq!((error.kind(), error.is_transient()), (kind, transient), "{error:?}");
        }
    }

    #[test]
    fn revisions_that_are_gone_are_told_from_other_ranges() {
        let of = |message: &str| {
            Failure::from(etcd_client::Error::GRpcStatus(Status::out_of_range(message)))
        };
        assert!(of("etcdserver: mvcc: required revision has been compacted").is_revision_gone());
        assert!(of("etcdserver: mvcc: required revision is a future revision").is_revision_gone());
        assert!(!of("etcdserver: too large lease TTL").is_revision_gone());
    }
}
