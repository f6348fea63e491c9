use serde::Deserialize;

use super::pem::{CERTIFICATE, KEY, Pem, invalid};
use crate::{Result, Secret};

/// Settings of TLS: trusted authorities, client certificate, server name.
///
/// Defaults to the operating system's authorities, no client certificate, and a server
/// certificate for the host that is connected to. Certificates and keys are PEM texts, in
/// files or in memory; [`Rotating`](crate::Rotating) reads rotated files again.
///
/// Partial configurations cannot be expressed: a client certificate always comes with its key,
/// and an authority that is given is ignored only where any certificate is accepted.
///
/// ```
/// use tower_sd::tls::TlsConfig;
///
/// let tls = TlsConfig::new()
///     .with_root("/etc/app/ca.pem")
///     .with_identity("/etc/app/client.pem", "/etc/app/client-key.pem")
///     .with_server_name("orders.internal");
/// ```
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct TlsConfig {
    roots: Option<Vec<Pem>>,
    identity: Option<TlsIdentity>,
    server_name: Option<String>,
    danger_accept_invalid_certificates: bool,
}

/// A client certificate and its key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
struct TlsIdentity {
    certificate: Pem,
    key: Pem,
}

/// The PEM texts that a [`TlsConfig`] names.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TlsMaterial {
    /// The trusted authorities; `None` stands for the operating system's.
    pub roots: Option<String>,
    /// The client certificate with its chain, and its key.
    pub identity: Option<(String, Secret)>,
}

impl TlsConfig {
    /// Creates the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts these authorities, and no others than those given by this method.
    ///
    /// May be called several times. A folder stands for all files in it. Defaults to the
    /// operating system's authorities.
    pub fn with_root(mut self, authorities: impl Into<Pem>) -> Self {
        self.roots.get_or_insert_default().push(authorities.into());
        self
    }

    /// Presents this certificate to servers that request one.
    ///
    /// The certificate is followed by those between it and its authority. The key is neither
    /// encrypted nor for another certificate. Defaults to none.
    pub fn with_identity(mut self, certificate: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        self.identity = Some(TlsIdentity { certificate: certificate.into(), key: key.into() });
        self
    }

    /// Requires a server certificate for this DNS name or IP address.
    ///
    /// It is also sent as SNI. Defaults to the host that is connected to. Instances that a registry
    /// lists by IP address usually need the name of their service here.
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Accepts any server certificate; authorities beside it are not used.
    ///
    /// For experiments only: any host on the way can then read and change all traffic, tokens
    /// included.
    pub fn danger_accept_invalid_certificates(mut self) -> Self {
        self.danger_accept_invalid_certificates = true;
        self
    }

    /// Returns the name that a server certificate must have, if not the host's.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Whether any server certificate is accepted.
    pub fn accepts_invalid_certificates(&self) -> bool {
        self.danger_accept_invalid_certificates
    }

    /// Reads all files.
    ///
    /// # Errors
    ///
    /// `Config` for a file that cannot be read, or a text without the PEM block that it must have.
    pub fn load(&self) -> Result<TlsMaterial> {
        let roots = match self.roots.as_deref() {
            None => None,
            Some([]) => return Err(invalid("roots: empty; name an authority, or omit it")),
            Some(sources) => {
                let texts = sources.iter().map(|source| source.read("root", CERTIFICATE));
                Some(texts.collect::<Result<Vec<String>>>()?.join("\n"))
            }
        };
        let identity = match &self.identity {
            None => None,
            Some(TlsIdentity { certificate, key }) => {
                Some((certificate.read("certificate", CERTIFICATE)?, key.read("key", KEY)?.into()))
            }
        };
        Ok(TlsMaterial { roots, identity })
    }
}
