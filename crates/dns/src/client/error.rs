//! From what went wrong to the kind of error.

use std::net::SocketAddr;

use hickory_resolver::{
    net::{DnsError, NetError},
    proto::{op::ResponseCode, rr::Name},
};
use tower_sd_core::{Error, ErrorKind};

use crate::{BACKEND, query::shown};

/// Every one of them is worth repeating, and none says that there are no records: the set is kept.
pub(crate) fn of(cause: NetError, name: &Name, server: SocketAddr) -> Error {
    let (kind, what) = classify(&cause);
    let message = format!("asked {server} for {}: {what}", shown(name));
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
        NetError::Timeout => (ErrorKind::Timeout, "no answer in time".to_owned()),
        NetError::Truncated => (ErrorKind::Protocol, "truncated even over TCP".to_owned()),
        NetError::Dns(_) | NetError::Proto(_) | NetError::ForeignClassRecord { .. } => {
            (ErrorKind::Protocol, "the answer was not understood".to_owned())
        }
        _ => (ErrorKind::Unavailable, "cannot be reached".to_owned()),
    }
}

pub(crate) fn no_servers() -> Error {
    Error::new(ErrorKind::Config, BACKEND, "follow")
        .with_message("no name servers: the system's configuration names none; give one")
        .transient()
}

pub(crate) fn too_many_aliases(name: &Name) -> Error {
    Error::new(ErrorKind::Protocol, BACKEND, "follow")
        .with_message(format!("{} is an alias of an alias, eight times over", shown(name)))
}

#[cfg(test)]
mod tests {
    use std::io;

    use hickory_resolver::proto::{ProtoError, rr::Name};

    use super::*;

    /// The configuration is likely being written.
    #[test]
    fn having_no_servers_is_transient() {
        assert!(no_servers().is_transient());
    }

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
            assert!(error.to_string().contains("asked 127.0.0.1:53 for a.example: "), "{error}");
        }
    }
}
