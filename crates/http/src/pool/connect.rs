use tower_sd_balance::BoxError;
use tower_sd_net::{Connection, Io};

use super::Target;
use crate::Protocol;

/// Connects; with the protocol that is then spoken: the offered one, or the server's choice of it.
pub(super) async fn connect(target: &Target, offer: Protocol) -> Result<(Io, Protocol), BoxError> {
    let offered: &[&[u8]] = match offer {
        Protocol::Auto => &[HTTP_2, HTTP_1],
        Protocol::Http1 => &[HTTP_1],
        Protocol::Http2 => &[HTTP_2],
    };
    let Connection { io, alpn, .. } =
        target.dialer.dial(&target.peer, target.tls.as_ref(), offered).await?;
    match (&target.tls, offer, alpn.as_deref()) {
        (None, Protocol::Http2, _) | (Some(_), _, Some(HTTP_2)) => Ok((io, Protocol::Http2)),
        (Some(_), Protocol::Http2, _) => Err("the server does not agree to HTTP/2 (ALPN)".into()),
        // A server without ALPN speaks the version before it.
        _ => Ok((io, Protocol::Http1)),
    }
}

/// Their names in ALPN (RFC 7301).
const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";
