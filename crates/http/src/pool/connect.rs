use std::error::Error;

use tokio::time::Instant;
use tower_sd_balance::{BoxError, Event};
use tower_sd_net::{Connection, Io};

use super::Target;
use crate::HttpVersion;

/// Connects; with the protocol in use: the offered one, or the server's choice of it.
pub(super) async fn connect(
    target: &Target,
    offer: HttpVersion,
) -> Result<(Io, HttpVersion), BoxError> {
    let offered: &[&[u8]] = match offer {
        HttpVersion::Auto => &[HTTP_2, HTTP_1],
        HttpVersion::Http1 => &[HTTP_1],
        HttpVersion::Http2 => &[HTTP_2],
    };
    let begun = Instant::now();
    let dialled = target.dialer.dial(&target.peer, target.tls.as_ref(), offered).await;
    if let Some(observer) = &target.observer {
        let error = dialled.as_ref().err().map(|error| -> &(dyn Error + 'static) { error });
        let (address, time) = (&*target.address, begun.elapsed());
        observer.on(&Event::Connected { address, time, error });
    }
    let Connection { io, alpn, .. } = dialled?;
    match (&target.tls, offer, alpn.as_deref()) {
        (None, HttpVersion::Http2, _) | (Some(_), _, Some(HTTP_2)) => Ok((io, HttpVersion::Http2)),
        (Some(_), HttpVersion::Http2, _) => {
            Err("the server does not agree to HTTP/2 (ALPN)".into())
        }
        // A server without ALPN uses the version before it.
        _ => Ok((io, HttpVersion::Http1)),
    }
}

/// Their names in ALPN (RFC 7301).
const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";
