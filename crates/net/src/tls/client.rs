use std::{fmt, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::TlsConnector;
use tower_sd_core::{BoxError, Error, ErrorKind, Result, Rotating, TlsConfig};

use super::{failure::TlsFailure, rustls_config};
use crate::{Io, Target};

/// TLS for client connections, which follows rotated files. `Clone` is one `Arc`.
///
/// Files are read again for a new connection 1 s or more after the last read, and after a failed
/// handshake. While they cannot be used (a certificate whose key has not been replaced yet), the
/// last good ones stay in use. Open connections keep what they were made with. The operating
/// system's authorities are read once.
#[derive(Clone)]
pub struct TlsClient(Arc<Inner>);

struct Inner {
    source: Source,
    server_name: Option<ServerName<'static>>,
}

enum Source {
    Files(Box<TlsConfig>, Rotating<Arc<ClientConfig>>),
    Given(Arc<ClientConfig>),
}

impl TlsClient {
    /// Reads all files, and checks that they fit together.
    ///
    /// # Errors
    ///
    /// `Config` for an unreadable file, a text that is no PEM of its kind, and a key of another
    /// certificate. Likewise for a server name that is no DNS name or IP address. With the feature
    /// `tls` alone also for a process without an installed crypto provider.
    pub fn new(config: TlsConfig) -> Result<Self> {
        let name = config.server_name().map(server_name).transpose()?;
        let files = rustls_config::rotating(config.clone(), rustls_config::build)?;
        Ok(Self::from_source(Source::Files(Box::new(config), files), name))
    }

    /// Uses a configuration of rustls, for settings that [`TlsConfig`] lacks.
    ///
    /// Its list of protocols (ALPN) is replaced by the list that each connection offers.
    pub fn from_rustls(config: Arc<ClientConfig>) -> Self {
        Self::from_source(Source::Given(config), None)
    }

    /// Requires a server certificate for this name.
    ///
    /// See [`TlsConfig::with_server_name`].
    ///
    /// # Errors
    ///
    /// `Config` for a name that is no DNS name or IP address.
    pub fn with_server_name(self, name: &str) -> Result<Self> {
        let name = server_name(name)?;
        match &self.0.source {
            Source::Given(config) => {
                Ok(Self::from_source(Source::Given(Arc::clone(config)), Some(name)))
            }
            Source::Files(config, _) => {
                Self::new(TlsConfig::clone(config).with_server_name(name.to_str()))
            }
        }
    }

    /// Has the files read again for the next connection.
    ///
    /// To be called when [`TlsFailure::find`] finds a failure in the error of a connection: in
    /// TLS 1.3 a server refuses a client certificate after the client's half of the handshake.
    pub fn suspect(&self) {
        if let Source::Files(_, rotating) = &self.0.source {
            rotating.suspect();
        }
    }

    fn from_source(source: Source, server_name: Option<ServerName<'static>>) -> Self {
        Self(Arc::new(Inner { source, server_name }))
    }

    /// The configuration of a new connection.
    fn config(&self) -> Arc<ClientConfig> {
        match &self.0.source {
            Source::Given(config) => Arc::clone(config),
            Source::Files(_, rotating) => rotating.current().value,
        }
    }

    pub(crate) async fn handshake(
        &self,
        target: &Target,
        alpn: &[&[u8]],
        io: Io,
    ) -> Result<(Io, Option<Vec<u8>>), BoxError> {
        let name = match &self.0.server_name {
            Some(name) => name.clone(),
            None => server_name(target.server_name())?,
        };
        let mut config = ClientConfig::clone(&self.config());
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        match TlsConnector::from(Arc::new(config)).connect(name, io).await {
            Ok(stream) => {
                let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
                Ok((Io::boxed(stream), agreed))
            }
            Err(error) => {
                self.suspect();
                Err(match TlsFailure::find(&error) {
                    Some(failure) => failure.with_source(error).into(),
                    None => error.into(),
                })
            }
        }
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(|cause| {
        let message = format!("server name {name:?}: neither a DNS name nor an IP address");
        Error::new(ErrorKind::Config, "tls", "configure").with_message(message).with_source(cause)
    })
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TlsClient");
        debug.field("server_name", &self.0.server_name);
        if let Source::Files(config, _) = &self.0.source {
            debug.field("config", config);
        }
        debug.finish_non_exhaustive()
    }
}
