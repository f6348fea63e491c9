use std::{future::Future, time::Duration};

use tokio::{net::TcpStream, time};
use tower_sd::BoxError;

use super::{Io, Target};
use crate::Protocol;

/// Connects, and says which protocol is then spoken: what is offered, or what the server chose of it.
pub(super) async fn connect(target: &Target, offer: Protocol) -> Result<(Io, Protocol), BoxError> {
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    // A request is written in one piece; waiting for more would only delay it.
    stream.set_nodelay(true)?;
    match (&target.secured, offer) {
        (Some(secured), _) => secured.connect(stream, offer).await,
        (None, Protocol::Http2) => Ok((Io::Plain(stream), Protocol::Http2)),
        (None, Protocol::Auto | Protocol::Http1) => Ok((Io::Plain(stream), Protocol::Http1)),
    }
}

/// Bounds connecting, with all that belongs to it.
pub(super) async fn within<T>(
    bound: Duration,
    opening: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    match time::timeout(bound, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(format!("not connected within {bound:?}").into()),
    }
}
