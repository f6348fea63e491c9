//! rustls's configuration of a client, of PEM texts.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use rustls_native_certs::CertificateResult;
use tower_sd_core::{Error, ErrorKind, Result, Rotating, Secret, TlsConfig, TlsMaterial};

/// A configuration that follows the files of `config`.
pub(super) fn rotating<C: 'static>(
    config: TlsConfig,
    build: fn(&TlsConfig, &TlsMaterial) -> Result<Arc<C>>,
) -> Result<Rotating<Arc<C>>> {
    let files = config.clone();
    Rotating::new("TLS files", move || files.load(), move |read| build(&config, read))
}

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

fn system_roots() -> Result<Arc<RootCertStore>> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = read_once(&ROOTS, rustls_native_certs::load_native_certs);
    match roots.is_empty() {
        true => Err(invalid("the operating system trusts no authorities; name some")),
        false => Ok(roots),
    }
}

/// Read until it succeeds. Those that cannot be parsed are left out, as in other programs.
fn read_once(
    cell: &OnceLock<Arc<RootCertStore>>,
    read: impl FnOnce() -> CertificateResult,
) -> Arc<RootCertStore> {
    if let Some(roots) = cell.get() {
        return Arc::clone(roots);
    }
    let mut roots = RootCertStore::empty();
    let CertificateResult { certs, errors, .. } = read();
    roots.add_parsable_certificates(certs);
    let roots = Arc::new(roots);
    // Without a free descriptor, or before the bundle is mounted, the next time may differ.
    match errors.is_empty() && !roots.is_empty() {
        true => Arc::clone(cell.get_or_init(|| roots)),
        false => roots,
    }
}

pub(super) fn trusting(authorities: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for (n, certificate) in (1..).zip(certificates(authorities, "root")?) {
        roots.add(certificate).map_err(|cause| {
            invalid(format!("root: certificate {n} is malformed")).with_source(cause)
        })?;
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

#[cfg(test)]
mod tests {
    use std::io;

    use rustls_native_certs::{Error, ErrorKind};

    use super::*;

    fn read(has_certificate: bool, has_failed: bool) -> CertificateResult {
        let mut read = CertificateResult::default();
        if has_certificate {
            let signed = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
            read.certs.push(signed.cert.into());
        }
        if has_failed {
            let kind = ErrorKind::Io { inner: io::ErrorKind::Other.into(), path: "/a".into() };
            read.errors.push(Error { context: "not opened", kind });
        }
        read
    }

    #[test]
    fn system_roots_are_read_again_after_a_failure() {
        let cell = OnceLock::new();
        for (has_certificate, has_failed) in [(false, false), (false, true), (true, true)] {
            let roots = read_once(&cell, || read(has_certificate, has_failed));
            assert_eq!((roots.is_empty(), cell.get().is_some()), (!has_certificate, false));
        }
        assert_eq!(read_once(&cell, || read(true, false)).len(), 1);
        assert_eq!(read_once(&cell, || panic!("they are known")).len(), 1);
    }
}
