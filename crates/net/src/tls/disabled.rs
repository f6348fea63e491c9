use std::convert::Infallible;

use tower_sd_core::{BoxError, Error, ErrorKind, Result, TlsConfig};

use crate::{Io, Target};

/// TLS for client connections; no feature has compiled it in.
#[derive(Clone, Debug)]
pub struct TlsClient(Infallible);

impl TlsClient {
    /// Refuses: no TLS is compiled in.
    ///
    /// # Errors
    ///
    /// `Config`, always.
    pub fn new(_config: TlsConfig) -> Result<Self> {
        let message = "no TLS is compiled in; enable the feature tls-ring or tls";
        Err(Error::new(ErrorKind::Config, "tls", "configure").with_message(message))
    }

    /// Has the files read again for the next connection.
    pub fn suspect(&self) {
        match self.0 {}
    }

    #[expect(clippy::unused_async, reason = "with TLS it waits for the handshake")]
    pub(crate) async fn handshake(
        &self,
        _target: &Target,
        _alpn: &[&[u8]],
        _io: Io,
    ) -> Result<(Io, Option<Vec<u8>>), BoxError> {
        match self.0 {}
    }
}
