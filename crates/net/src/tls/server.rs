use std::{io, sync::Arc, time::Duration};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower_sd_core::{Result, Rotating, TlsConfig, TlsMaterial};

use super::rustls_config::{certificates, invalid, private_key, provider, rotating, trusting};

/// TLS for accepted connections, which follows rotated files. `Clone` is one `Arc`.
///
/// The identity of the [`TlsConfig`] is the server's certificate. Authorities, where given, are
/// those of the clients, which must then present a certificate that is valid at the time of each
/// connection: no session is resumed, since a resumed one checks no certificate.
///
/// Files are read again for a new connection 1 s or more after the last read. While they cannot
/// be used (a certificate whose key has not been replaced yet), the last good ones stay in use.
#[derive(Clone, Debug)]
pub struct TlsServer(Arc<Rotating<Arc<ServerConfig>>>);

impl TlsServer {
    /// Reads all files, and checks that they fit together.
    ///
    /// # Errors
    ///
    /// `Config` without an identity, and as [`TlsClient::new`](crate::TlsClient::new).
    pub fn new(config: TlsConfig) -> Result<Self> {
        rotating(config, build).map(|rotating| Self(Arc::new(rotating)))
    }

    /// Shakes hands with a client, within 10 s, and offers these protocols (ALPN).
    ///
    /// # Errors
    ///
    /// The handshake failed, or took too long.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the connection is closed.
    pub async fn accept<S>(&self, stream: S, alpn: &[&[u8]]) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut config = ServerConfig::clone(&self.0.current().value);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let handshake = TlsAcceptor::from(Arc::new(config)).accept(stream);
        match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(accepted) => accepted,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn build(_config: &TlsConfig, material: &TlsMaterial) -> Result<Arc<ServerConfig>> {
    let Some((certificate, key)) = &material.identity else {
        return Err(invalid("a server needs a certificate and its key"));
    };
    let provider = provider()?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|cause| invalid("the crypto provider has no TLS version").with_source(cause))?;
    let builder = match &material.roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let roots: Arc<RootCertStore> = Arc::new(trusting(roots)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|cause| {
                invalid("root: no authorities for client certificates").with_source(cause)
            })?)
        }
    };
    let chain: Vec<CertificateDer<'static>> = certificates(certificate, "certificate")?;
    let key: PrivateKeyDer<'static> = private_key(key)?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|cause| invalid("the key is not the certificate's").with_source(cause))?;
    if material.roots.is_some() {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

/// Some round trips under packet loss, and no longer: a silent client costs a descriptor.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
