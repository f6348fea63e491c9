//! Connections to instances over TLS, with rustls and ring.

use std::{error, fmt, sync::Arc};

use rustls::{
    AlertDescription, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;
use tower_sd::{BoxError, Error, ErrorKind, Result};
use tower_sd_core::Secret;

use crate::{HttpFactory, Protocol, io::Io};

/// How connections to instances are secured. All texts are PEM.
///
/// There is no half of it: a certificate comes with its key, and an own authority is never ignored.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Tls {
    /// Not at all.
    #[default]
    Off,
    /// A server's certificate is checked against the authorities that the operating system trusts.
    SystemRoots,
    /// A server's certificate is checked against these authorities, and no others.
    Authority(String),
    /// As [`Authority`](Self::Authority), and we show a certificate too.
    Mutual {
        /// The authorities that a server's certificate is checked against.
        authority: String,
        /// Our certificate, followed by those between it and the authority.
        certificate: String,
        /// The key of our certificate.
        key: Secret,
    },
    /// A configuration of your own, for what is not here: another crypto provider, rotating certificates, pinning. Its
    /// list of protocols (ALPN) is replaced by that of the factory's [`Protocol`].
    Config(Arc<ClientConfig>),
}

/// What all connections to an instance are secured by.
#[derive(Clone)]
pub(crate) struct Secured {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl<B> HttpFactory<B> {
    /// Speaks TLS to every instance, whose certificate has to be one for `service`: a DNS name or an IP address, the same
    /// for all of them. Default: [`Tls::Off`].
    ///
    /// An instance whose scheme is `http` is then refused; without TLS, one whose scheme is `https` is. A failed handshake
    /// is a failed connect: the endpoint is down, and no request was spent on it.
    ///
    /// ```
    /// use tower_sd_http::{HttpFactory, Protocol, Tls};
    ///
    /// let factory: HttpFactory<String> = HttpFactory::new()
    ///     .protocol(Protocol::Http2)
    ///     .tls("arithmetic.internal", Tls::SystemRoots)?;
    /// # Ok::<(), tower_sd::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Config` when `service` is no name, a text is no PEM of what it should be, or key and certificate do not fit.
    pub fn tls(self, service: &str, tls: Tls) -> Result<Self> {
        let secured = tls.config()?.map(|config| Secured::new(service, config));
        Ok(self.secured(secured.transpose()?))
    }
}

impl Tls {
    fn config(self) -> Result<Option<Arc<ClientConfig>>> {
        let (roots, identity) = match self {
            Self::Off => return Ok(None),
            Self::Config(config) => return Ok(Some(config)),
            Self::SystemRoots => (system_roots()?, None),
            Self::Authority(authority) => (trusting(&authority)?, None),
            Self::Mutual { authority, certificate, key } => {
                (trusting(&authority)?, Some((certificate, key)))
            }
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|cause| refused("no TLS version").with_source(cause))?
            .with_root_certificates(roots);
        let Some((certificate, key)) = identity else {
            return Ok(Some(Arc::new(builder.with_no_client_auth())));
        };
        let chain = certificates(&certificate, "certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
            .map_err(|cause| refused("the key of tls is no PEM text of one").with_source(cause))?;
        let config = builder.with_client_auth_cert(chain, key).map_err(|cause| {
            refused("the certificate and the key of tls do not fit").with_source(cause)
        })?;
        Ok(Some(Arc::new(config)))
    }
}

impl Secured {
    fn new(service: &str, config: Arc<ClientConfig>) -> Result<Self> {
        let name = ServerName::try_from(service.to_owned()).map_err(|cause| {
            refused(format!("the service's name {service:?} is no DNS name")).with_source(cause)
        })?;
        Ok(Self { name, config })
    }

    /// Offers what `offer` says, and says what was agreed on.
    pub(crate) async fn connect(
        &self,
        io: Io,
        offer: Protocol,
    ) -> Result<(Io, Protocol), BoxError> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = match offer {
            Protocol::Auto => vec![HTTP_2.to_vec(), HTTP_1.to_vec()],
            Protocol::Http1 => vec![HTTP_1.to_vec()],
            Protocol::Http2 => vec![HTTP_2.to_vec()],
        };
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(self.name.clone(), io).await?;
        let agreed = match stream.get_ref().1.alpn_protocol() {
            Some(HTTP_2) => Protocol::Http2,
            // A server without ALPN speaks what there was before it.
            Some(_) | None if offer == Protocol::Http2 => {
                return Err("the server does not agree to HTTP/2 (ALPN)".into());
            }
            Some(_) | None => Protocol::Http1,
        };
        Ok((Io::Other(Box::pin(stream)), agreed))
    }
}

/// Whether the server refused the client's certificate. In TLS 1.3 the client's half of the handshake is over before the
/// server checks it, so that the alert arrives in the place of the first answer; the server has read no request.
pub(crate) fn is_handshake_refused(error: &(dyn error::Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |error| match error.downcast_ref() {
        // An io::Error shows the source of what it wraps, not what it wraps.
        Some(io) => inner(io),
        None => error.source(),
    });
    chain.filter_map(|error| error.downcast_ref()).any(|error| match error {
        rustls::Error::AlertReceived(alert) => matches!(
            alert,
            AlertDescription::AccessDenied
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRequired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::DecryptError
                | AlertDescription::UnknownCA
                | AlertDescription::UnsupportedCertificate
        ),
        _ => false,
    })
}

fn inner(error: &std::io::Error) -> Option<&(dyn error::Error + 'static)> {
    let inner: &(dyn error::Error + 'static) = error.get_ref()?;
    Some(inner)
}

/// Those that cannot be parsed are left out, as everywhere.
fn system_roots() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(refused("the operating system has no certificates to trust")),
        false => Ok(roots),
    }
}

fn trusting(authority: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority, "authority")? {
        roots.add(certificate).map_err(|cause| {
            refused("the authority of tls is no certificate that can be trusted").with_source(cause)
        })?;
    }
    Ok(roots)
}

fn certificates(text: &str, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let no_pem = || refused(format!("the {what} of tls is no PEM text of one"));
    let found: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<std::result::Result<_, _>>()
        .map_err(|cause| no_pem().with_source(cause))?;
    if found.is_empty() { Err(no_pem()) } else { Ok(found) }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, "http", "tls").with_message(message)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "Off",
            Self::SystemRoots => "SystemRoots",
            Self::Authority(_) => "Authority",
            Self::Mutual { .. } => "Mutual",
            Self::Config(_) => "Config",
        })
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Their names in ALPN (RFC 7301).
const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";
