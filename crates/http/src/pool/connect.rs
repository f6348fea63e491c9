use tokio::net::TcpStream;
use tower_sd::BoxError;

use super::Target;
use crate::{Protocol, io::Io};

/// Connects; with the protocol that is then spoken: the offered one, or the server's choice of it.
pub(super) async fn connect(target: &Target, offer: Protocol) -> Result<(Io, Protocol), BoxError> {
    let io = match &target.connector {
        Some(connector) => connector.connect(&target.instance).await?,
        None => tcp(target).await?,
    };
    match (&target.secured, offer) {
        (Some(secured), _) => secured.connect(io, offer).await,
        (None, Protocol::Http2) => Ok((io, Protocol::Http2)),
        (None, Protocol::Auto | Protocol::Http1) => Ok((io, Protocol::Http1)),
    }
}

async fn tcp(target: &Target) -> Result<Io, BoxError> {
    let instance = &target.instance;
    let stream = TcpStream::connect((instance.host(), instance.port())).await?;
    // A request is written in one piece; waiting for more would only delay it.
    stream.set_nodelay(true)?;
    Ok(Io::Tcp(stream))
}
