use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};

use super::*;
use crate::{Etcd, EtcdConfig};

/// Code, text, and what is made of it.
type Row = (Code, &'static str, Verdict);

const ROWS: &[Row] = &[
    (Code::Unavailable, "no leader", UNREACHABLE),
    (Code::Unavailable, "leader changed", UNREACHABLE),
    (Code::Unavailable, "request timed out", UNREACHABLE),
    (Code::Unknown, "transport error", UNREACHABLE),
    (Code::Internal, "h2 protocol error", UNREACHABLE),
    (Code::Cancelled, "operation was canceled", UNREACHABLE),
    (Code::DataLoss, "corrupt cluster", UNREACHABLE),
    (Code::DeadlineExceeded, "context deadline exceeded", SLOW),
    (Code::ResourceExhausted, "database space exceeded", BUSY),
    (Code::ResourceExhausted, "too many requests", BUSY),
    (Code::Unauthenticated, "invalid auth token", STALE_TOKEN),
    (Code::InvalidArgument, "user name is empty", STALE_TOKEN),
    (Code::InvalidArgument, "auth store is old", STALE_TOKEN),
    (Code::InvalidArgument, "authentication failed", DENIED),
    (Code::PermissionDenied, "permission denied", DENIED),
    (Code::InvalidArgument, "request is too large", WRONG),
    (Code::InvalidArgument, "key is not provided", WRONG),
    (Code::OutOfRange, "too large lease TTL", WRONG),
    (Code::FailedPrecondition, "not enabled", WRONG),
    (Code::FailedPrecondition, "lease already exists", OWNED),
    (Code::NotFound, "requested lease not found", UNKNOWN),
    (Code::OutOfRange, "has been compacted", NOT_UNDERSTOOD),
    (Code::Unimplemented, "unknown service", FOREIGN),
];
const SLOW: Verdict = (ErrorKind::Timeout, true, Remedy::NextMember);
const BUSY: Verdict = (ErrorKind::Unavailable, true, Remedy::None);
const OWNED: Verdict = (ErrorKind::Conflict, false, Remedy::None);
const UNKNOWN: Verdict = (ErrorKind::NotFound, false, Remedy::None);
const NOT_UNDERSTOOD: Verdict = (ErrorKind::Protocol, true, Remedy::None);
const FOREIGN: Verdict = (ErrorKind::Protocol, true, Remedy::NextMember);

fn failure(code: Code, text: &str) -> Failure {
    let status = Status::new(code, format!("etcdserver: {text}"));
    Failure::from(etcd_client::Error::GRpcStatus(status))
}

#[test]
fn every_row_of_the_table_is_as_written() {
    for &(code, text, (kind, transient, remedy)) in ROWS {
        let failure = failure(code, text);
        assert_eq!(failure.remedy, remedy, "{text}");
        let error = failure.into_error("test");
        assert_eq!((error.kind(), error.is_transient()), (kind, transient), "{text}");
    }
}

/// A learner answers 14 on etcd 3.5 and 9 on 3.6.
#[test]
fn learner_is_left_for_the_next_member_whatever_its_code() {
    for code in [Code::Unavailable, Code::FailedPrecondition] {
        let failure = failure(code, "rpc not supported for learner");
        assert_eq!(failure.remedy, Remedy::NextMember, "{code:?}");
        assert!(failure.into_error("test").is_transient(), "{code:?}");
    }
}

#[test]
fn errors_of_the_client_library_have_rows_too() {
    use etcd_client::Error as Wire;
    let text = || "text".to_owned();
    let rows = [
        (Wire::LeaseKeepAliveError(text()), ErrorKind::NotFound, false),
        (Wire::InvalidArgs(text()), ErrorKind::Config, false),
        (Wire::WatchError(text()), ErrorKind::Unavailable, true),
        (Wire::Internal(text()), ErrorKind::Protocol, true),
    ];
    for (wire, kind, transient) in rows {
        let error = Failure::from(wire).into_error("test");
        assert_eq!((error.kind(), error.is_transient()), (kind, transient), "{error:?}");
    }
}

/// A canceled watch has no code, only a text.
#[test]
fn text_of_a_cancellation_is_understood() {
    let of = |text| Failure::of_cancel(text).into_error("watch");
    assert_eq!(
        of("rpc error: code = PermissionDenied desc = etcdserver: permission denied").kind(),
        ErrorKind::Denied
    );
    assert!(of("etcdserver: no leader").is_transient());
    let token = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    assert_eq!(Failure::of_cancel(token).remedy, Remedy::Authenticate);
    assert_eq!(Failure::of_cancel("etcdserver: user name is empty").remedy, Remedy::Authenticate);
}

#[test]
fn revisions_that_are_gone_differ_from_other_ranges() {
    let gone = |text| failure(Code::OutOfRange, text).is_revision_gone();
    assert!(gone("mvcc: required revision has been compacted"));
    assert!(gone("mvcc: required revision is a future revision"));
    assert!(!gone("too large lease TTL"));
    assert!(!gone("Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes"));
}

#[tokio::test]
async fn member_that_is_away_is_named_with_the_systems_reason() {
    // Bound and not listening, so that no other test gets the port.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("loopback");
    let address = socket.local_addr().expect("bound");
    let (text, chain) = complaint(address).await;
    assert!(text.starts_with(&format!("etcd check: http://{address} cannot be reached")), "{text}");
    assert!(chain.contains("Connection refused"), "{chain}");
    assert!(!chain.contains("Error("), "{chain}");
}

#[tokio::test]
async fn server_with_http_1_is_no_etcd() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let answers = async {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let _preface = stream.read(&mut [0; 4096]).await.expect("readable");
            let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request";
            stream.write_all(answer).await.expect("writable");
        }
    };
    let (text, chain) = tokio::select! {
        complaint = complaint(address) => complaint,
        () = answers => unreachable!("it answers without end"),
    };
    assert!(text.contains("does not serve etcd's gRPC"), "{text}; {chain}");
}

async fn complaint(address: SocketAddr) -> (String, String) {
    let config = EtcdConfig::new([address.to_string()]).request_timeout(Duration::from_secs(5));
    let error = Etcd::new(config).expect("an address").check().await.expect_err("no etcd");
    (error.to_string(), error.chain().to_string())
}
