use std::fmt;

use etcd_client::{Certificate, Identity, TlsOptions};
use tower_sd_core::Secret;

/// How connections to etcd are secured. All texts are PEM.
///
/// There is no half of it: a certificate comes with its key, and an own authority is never ignored.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Tls {
    /// Not at all.
    #[default]
    Off,
    /// The server's certificate is checked against the authorities that the operating system trusts.
    SystemRoots,
    /// The server's certificate is checked against these authorities, and no others.
    Authority(String),
    /// As [`Authority`](Self::Authority), and we show a certificate too. With `--client-cert-auth` etcd takes its common
    /// name for the user, and no password is needed.
    Mutual {
        /// The authorities that the server's certificate is checked against.
        authority: String,
        /// Our certificate, followed by those between it and the authority.
        certificate: String,
        /// The key of our certificate.
        key: Secret,
    },
}

impl Tls {
    pub(super) fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    pub(crate) fn options(&self) -> Option<TlsOptions> {
        let trusting =
            |authority: &str| TlsOptions::new().ca_certificate(Certificate::from_pem(authority));
        match self {
            Self::Off => None,
            Self::SystemRoots => Some(TlsOptions::new().with_native_roots()),
            Self::Authority(authority) => Some(trusting(authority)),
            Self::Mutual { authority, certificate, key } => {
                let identity = Identity::from_pem(certificate, key.expose());
                Some(trusting(authority).identity(identity))
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "Off",
            Self::SystemRoots => "SystemRoots",
            Self::Authority(_) => "Authority",
            Self::Mutual { .. } => "Mutual",
        })
    }
}
