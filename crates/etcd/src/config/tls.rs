use std::fmt;

use etcd_client::{Certificate, Identity, TlsOptions};
use tower_sd_core::{Result, Secret};

use super::{refused, url::read};

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

    /// Checks that the texts are what they should be: otherwise every connection fails, as if nobody were there.
    pub(super) fn check(&self) -> Result<()> {
        let is = |kind, text: &str, what| match text.contains(kind) {
            true => Ok(()),
            false => Err(refused(format!("the {what} of tls is no PEM text of one"))),
        };
        match self {
            Self::Off | Self::SystemRoots => Ok(()),
            Self::Authority(authority) => is(CERTIFICATE, authority, "authority"),
            Self::Mutual { authority, certificate, key } => {
                is(CERTIFICATE, authority, "authority")?;
                is(CERTIFICATE, certificate, "certificate")?;
                is(KEY, key.expose(), "key")
            }
        }
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

/// What the options of a URL say about TLS.
#[derive(Default)]
pub(super) struct TlsFiles {
    pub(super) enabled: Option<bool>,
    pub(super) authority: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

impl TlsFiles {
    /// Reads the files; half of a configuration is an error.
    pub(super) fn read(self) -> Result<Tls> {
        let authority = |path: &String| read("ca-file", path);
        match (&self.authority, &self.certificate, &self.key) {
            (None, None, None) if self.enabled == Some(true) => Ok(Tls::SystemRoots),
            (None, None, None) => Ok(Tls::Off),
            _ if self.enabled == Some(false) => {
                Err(refused("tls=false leaves nothing to do for ca-file, cert-file and key-file"))
            }
            (Some(ca), None, None) => Ok(Tls::Authority(authority(ca)?)),
            (Some(ca), Some(certificate), Some(key)) => Ok(Tls::Mutual {
                authority: authority(ca)?,
                certificate: read("cert-file", certificate)?,
                key: read("key-file", key)?.into(),
            }),
            _ => Err(refused("cert-file and key-file only work together, and with ca-file")),
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

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// Of all kinds: PKCS 8, PKCS 1, SEC 1.
const KEY: &str = "PRIVATE KEY-----";
