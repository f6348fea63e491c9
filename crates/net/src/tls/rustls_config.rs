//! rustls's configuration of a client, of PEM texts.

use std::sync::{Arc, LazyLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tower_sd_core::{Error, ErrorKind, Result, Secret, TlsConfig, TlsMaterial};

pub(super) fn build(config: &TlsConfig, material: &TlsMaterial) -> Result<Arc<ClientConfig>> {
    let provider = provider()?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|cause| invalid("the crypto provider has no TLS version").with_source(cause))?;
    let builder = match (config.accepts_invalid_certificates(), &material.roots) {
        (true, _) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        }
        (false, None) => builder.with_root_certificates(system_roots()?),
        (false, Some(roots)) => builder.with_root_certificates(trusting(roots)?),
    };
    let Some((certificate, key)) = &material.identity else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let chain = certificates(certificate, "certificate")?;
    let key = private_key(key)?;
    let config = builder
        .with_client_auth_cert(chain, key)
        .map_err(|cause| invalid("the key is not the certificate's").with_source(cause))?;
    Ok(Arc::new(config))
}

/// The process's provider, or else a compiled-in one; none is installed for the process.
pub(super) fn provider() -> Result<Arc<CryptoProvider>> {
    if let Some(installed) = CryptoProvider::get_default() {
        return Ok(Arc::clone(installed));
    }
    #[cfg(feature = "tls-ring")]
    return Ok(Arc::new(crypto::ring::default_provider()));
    #[cfg(not(feature = "tls-ring"))]
    Err(invalid("the process has no crypto provider; install one, or enable the feature tls-ring"))
}

/// Read once per process. Those that cannot be parsed are left out, as in other programs.
fn system_roots() -> Result<Arc<RootCertStore>> {
    static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    let roots = Arc::clone(&ROOTS);
    match roots.is_empty() {
        true => Err(invalid("the operating system trusts no authorities; name some")),
        false => Ok(roots),
    }
}

pub(super) fn trusting(authorities: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities, "root")? {
        roots
            .add(certificate)
            .map_err(|cause| invalid("root: a certificate is malformed").with_source(cause))?;
    }
    Ok(roots)
}

pub(super) fn certificates(text: &str, role: &str) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(|cause| {
        invalid(format!("{role}: not a certificate in PEM form")).with_source(cause)
    })
}

pub(super) fn private_key(text: &Secret) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(text.expose().as_bytes())
        .map_err(|cause| invalid("key: not a private key in PEM form").with_source(cause))
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, "tls", "configure").with_message(message)
}

/// Accepts any certificate, and no broken handshake.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
