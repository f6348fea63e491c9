//! One table from errors of the wire to their kinds.

use std::time::Duration;

use tower_sd_core::{Error, ErrorKind};

use crate::{
    BACKEND,
    client::{ClientError, Refusal},
};

/// The error of an operation on a node.
pub(crate) fn error(cause: ClientError, operation: &'static str, path: &str) -> Error {
    let (kind, transient) = kind(&cause);
    let error = Error::new(kind, BACKEND, operation);
    let error = if transient { error.transient() } else { error.permanent() };
    match &cause {
        ClientError::Settings(settings) => error.with_source(settings.clone()),
        ClientError::Refused(Refusal::NoAuth | Refusal::AuthFailed) => {
            error.with_message(format!("access to {path} denied"))
        }
        ClientError::Refused(Refusal::SaslRequired) => {
            error.with_message("the servers require SASL, which is not supported")
        }
        ClientError::Refused(refusal) => {
            let error = error.with_message(format!("{path}: {refusal:?}"));
            // Of a server that is there: attempts cost it something.
            match transient && !matches!(refusal, Refusal::SessionExpired | Refusal::SessionMoved) {
                true => error.with_retry_after(REFUSED_PAUSE),
                false => error,
            }
        }
        _ => error.with_message(cause.to_string()).with_source(cause),
    }
}

/// As [`error`], of a request with data of so many bytes.
pub(crate) fn of_data(cause: ClientError, path: &str, n_bytes: usize) -> Error {
    let question = is_suspicious(&cause, n_bytes).then(|| {
        format!("{cause}; is the data of {n_bytes} bytes more than the server's jute.maxbuffer?")
    });
    let error = error(cause, "register", path);
    question.into_iter().fold(error, Error::with_message)
}

/// Whether the data may be what has ended the connection.
pub(crate) fn is_suspicious(cause: &ClientError, n_bytes: usize) -> bool {
    n_bytes > LARGE && matches!(cause, ClientError::Unanswered(_))
}

/// The error of data that have ended the connection twice.
pub(crate) fn too_large(path: &str, n_bytes: usize) -> Error {
    let message = format!(
        "{path}: the connection ends with each write of {n_bytes} bytes; allow them by the \
         servers' jute.maxbuffer, or make the metadata smaller"
    );
    Error::new(ErrorKind::Config, BACKEND, "register").with_message(message)
}

/// The kind of an error, and whether a repetition may succeed.
fn kind(cause: &ClientError) -> (ErrorKind, bool) {
    match cause {
        ClientError::Refused(refusal) => match refusal {
            Refusal::NoAuth | Refusal::AuthFailed => (ErrorKind::Denied, false),
            Refusal::NodeExists => (ErrorKind::Conflict, false),
            Refusal::NoNode => (ErrorKind::NotFound, true),
            Refusal::InvalidAcl
            | Refusal::BadArguments
            | Refusal::SaslRequired
            | Refusal::NoChildrenForEphemerals
            | Refusal::EphemeralOnLocalSession => (ErrorKind::Config, false),
            Refusal::BadVersion
            | Refusal::NotEmpty
            | Refusal::SessionExpired
            | Refusal::SessionMoved
            | Refusal::QuotaExceeded
            | Refusal::Other(_) => (ErrorKind::Unavailable, true),
        },
        ClientError::RequestTooLarge { .. } | ClientError::Settings(_) => {
            (ErrorKind::Config, false)
        }
        ClientError::ReplyTooLarge { .. } => (ErrorKind::Protocol, false),
        ClientError::Malformed(_) => (ErrorKind::Protocol, true),
        ClientError::Timeout(_) => (ErrorKind::Timeout, true),
        ClientError::Unanswered(cause) | ClientError::Unconnected(cause) => unavailable(cause),
        ClientError::At { error, .. } => kind(error),
        ClientError::ReadOnly
        | ClientError::Dial(_)
        | ClientError::Closed
        | ClientError::Io(_)
        | ClientError::Tls(_)
        | ClientError::Ended => (ErrorKind::Unavailable, true),
    }
}

/// The kind of a request's error, of the error of its connection.
fn unavailable(cause: &ClientError) -> (ErrorKind, bool) {
    match kind(cause) {
        (ErrorKind::Denied, transient) => (ErrorKind::Denied, transient),
        (ErrorKind::Config, transient) => (ErrorKind::Config, transient),
        (ErrorKind::Protocol, _) => (ErrorKind::Protocol, true),
        _ => (ErrorKind::Unavailable, true),
    }
}

/// The least pause after a refusal that may not last.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Below this, no server has a limit of requests.
const LARGE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_error_has_its_kind() {
        let refused = ClientError::Refused;
        let lost = |cause| ClientError::Unanswered(Arc::new(cause));
        for (cause, kind, transient) in [
            (refused(Refusal::NoAuth), ErrorKind::Denied, false),
            (refused(Refusal::NodeExists), ErrorKind::Conflict, false),
            (refused(Refusal::NoNode), ErrorKind::NotFound, true),
            (refused(Refusal::InvalidAcl), ErrorKind::Config, false),
            (refused(Refusal::EphemeralOnLocalSession), ErrorKind::Config, false),
            (refused(Refusal::SaslRequired), ErrorKind::Config, false),
            (refused(Refusal::SessionExpired), ErrorKind::Unavailable, true),
            (refused(Refusal::Other(-7)), ErrorKind::Unavailable, true),
            (ClientError::RequestTooLarge { n_bytes: 2, limit: 1 }, ErrorKind::Config, false),
            (ClientError::ReplyTooLarge { n_bytes: 2, limit: 1 }, ErrorKind::Protocol, false),
            (ClientError::Timeout(Duration::ZERO), ErrorKind::Timeout, true),
            (ClientError::ReadOnly, ErrorKind::Unavailable, true),
            (lost(ClientError::Closed), ErrorKind::Unavailable, true),
            (lost(refused(Refusal::AuthFailed)), ErrorKind::Denied, false),
            (lost(ClientError::Timeout(Duration::ZERO)), ErrorKind::Unavailable, true),
        ] {
            let text = format!("{cause:?}");
            let error = error(cause, "follow", "/a");
            assert_eq!((error.kind(), error.is_transient()), (kind, transient), "{text}");
        }
    }

    /// Without a pause requested, a registration repeats it every second.
    #[test]
    fn refusal_of_a_live_server_has_a_pause() {
        for (refusal, has_pause) in [
            (Refusal::QuotaExceeded, true),
            (Refusal::Other(-127), true),
            (Refusal::SessionExpired, false),
            (Refusal::NoAuth, false),
        ] {
            let pause = error(ClientError::Refused(refusal), "register", "/a").retry_after();
            assert_eq!(pause.is_some(), has_pause, "{refusal:?}");
        }
    }

    #[test]
    fn lost_connection_of_a_large_write_names_the_limit() {
        let lost = || ClientError::Unanswered(Arc::new(ClientError::Closed));
        let text = of_data(lost(), "/a", 500_000).to_string();
        assert!(text.contains("500000 bytes") && text.contains("jute.maxbuffer"), "{text}");
        let text = of_data(lost(), "/a", 500).to_string();
        assert!(!text.contains("jute.maxbuffer"), "{text}");
    }
}
