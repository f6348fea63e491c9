//! The kind of each failure.

use std::net::SocketAddr;

use hickory_resolver::{
    net::{DnsError, NetError},
    proto::{op::ResponseCode, rr::Name},
};
use tower_sd_core::{Error, ErrorKind};

use crate::{BACKEND, query::shown};

/// A failed query. It is worth repeating, and no evidence against the last records.
pub(crate) fn of(cause: NetError, name: &Name, server: SocketAddr) -> Error {
    let (kind, reason) = classify(&cause);
    let message = format!("query of {server} for {}: {reason}", shown(name));
    let error = Error::new(kind, BACKEND, "follow").with_message(message).with_source(cause);
    error.transient()
}

fn classify(cause: &NetError) -> (ErrorKind, String) {
    match cause {
        NetError::Dns(DnsError::ResponseCode(code)) => {
            let kind = match *code {
                ResponseCode::Refused => ErrorKind::Denied,
                ResponseCode::ServFail => ErrorKind::Unavailable,
                _ => ErrorKind::Protocol,
            };
            (kind, code.to_str().to_owned())
        }
        NetError::Timeout => (ErrorKind::Timeout, "no response in time".to_owned()),
        NetError::Truncated => (ErrorKind::Protocol, "truncated even over TCP".to_owned()),
        NetError::Dns(_) | NetError::Proto(_) | NetError::ForeignClassRecord { .. } => {
            (ErrorKind::Protocol, "malformed response".to_owned())
        }
        _ => (ErrorKind::Unavailable, "not reachable".to_owned()),
    }
}

pub(crate) fn too_many_aliases(name: &Name) -> Error {
    Error::new(ErrorKind::Protocol, BACKEND, "follow")
        .with_message(format!("too many aliases: {} leads through eight", shown(name)))
}

#[cfg(test)]
mod tests {
    use std::io;

    use hickory_resolver::proto::{ProtoError, rr::Name};

    use super::*;

    #[test]
    fn every_failure_has_its_kind_and_is_transient() {
        let code = |code| NetError::Dns(DnsError::ResponseCode(code));
        let rows = [
            (code(ResponseCode::ServFail), ErrorKind::Unavailable),
            (code(ResponseCode::Refused), ErrorKind::Denied),
            (code(ResponseCode::NotImp), ErrorKind::Protocol),
            (code(ResponseCode::FormErr), ErrorKind::Protocol),
            (NetError::Timeout, ErrorKind::Timeout),
            (NetError::Truncated, ErrorKind::Protocol),
            (NetError::from(ProtoError::from("garbage")), ErrorKind::Protocol),
            (NetError::from(io::Error::other("refused")), ErrorKind::Unavailable),
            (NetError::NoConnections, ErrorKind::Unavailable),
        ];
        let name = Name::from_ascii("a.example.").expect("a name");
        let server = SocketAddr::from(([127, 0, 0, 1], 53));
        for (cause, kind) in rows {
            let error = of(cause, &name, server);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.is_transient(), "{error}");
            assert!(error.to_string().contains("query of 127.0.0.1:53 for a.example: "), "{error}");
        }
    }
}
