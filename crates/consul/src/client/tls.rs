//! TLS as Consul's own client does it.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tower_sd_core::{Error, Result};

use super::error;
use crate::ConsulTls;

/// What an HTTP client needs, with a provider of its own: reqwest panics without one, even where no TLS is spoken.
///
/// `speaks`: whether TLS is used at all; the system's certificates are read only then.
pub(super) fn client_config(tls: &ConsulTls, speaks: bool) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let roots = if speaks { roots(tls)? } else { RootCertStore::empty() };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|cause| refuse("no TLS version").with_source(cause))?;
    let builder = match judge(tls, &roots, &provider)? {
        Some(judge) => builder.dangerous().with_custom_certificate_verifier(Arc::new(judge)),
        None => builder.with_root_certificates(roots),
    };
    match (&tls.client_cert, &tls.client_key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|cause| refuse("client_key cannot be read").with_source(cause))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|cause| refuse("client_cert and client_key do not fit").with_source(cause))
        }
        (Some(_), None) => Err(refuse("client_cert is given without client_key")),
        (None, Some(_)) => Err(refuse("client_key is given without client_cert")),
    }
}

/// Where the certificate is not judged by the address's host and the trusted roots alone.
fn judge(
    tls: &ConsulTls,
    roots: &RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Judge>> {
    let provider = Arc::clone(provider);
    if tls.skip_verify {
        return Ok(Some(Judge { by: None, provider }));
    }
    let Some(name) = &tls.server_name else {
        return Ok(None);
    };
    let name = ServerName::try_from(name.clone())
        .map_err(|cause| refuse("server_name is not a DNS name").with_source(cause))?;
    let roots =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(&provider))
            .build()
            .map_err(|cause| refuse("no certificates to trust").with_source(cause))?;
    Ok(Some(Judge { by: Some((name, roots)), provider }))
}

fn roots(tls: &ConsulTls) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let mut trusted = Vec::new();
    if let Some(file) = &tls.ca_file {
        trusted.extend(certificates(file)?);
    }
    if let Some(folder) = &tls.ca_path {
        let unreadable = |cause| refuse("ca_path cannot be read").with_source(cause);
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            trusted.extend(certificates(&entry.map_err(unreadable)?.path())?);
        }
    }
    if tls.ca_file.is_none() && tls.ca_path.is_none() {
        // Those that cannot be read are left out, as everywhere.
        trusted = rustls_native_certs::load_native_certs().certs;
        roots.add_parsable_certificates(trusted);
        return Ok(roots);
    }
    for certificate in trusted {
        roots
            .add(certificate)
            .map_err(|cause| refuse("a trusted certificate is malformed").with_source(cause))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |cause| {
        refuse(&format!("{} has no certificates in PEM form", file.display())).with_source(cause)
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<std::result::Result<_, _>>()
        .map_err(unreadable)?;
    match found.is_empty() {
        true => Err(refuse(&format!("{} has no certificates in PEM form", file.display()))),
        false => Ok(found),
    }
}

fn refuse(message: &str) -> Error {
    error::config("configure", message)
}

/// Judges the certificate by another name than the address's host, or not at all; never believes a broken handshake.
#[derive(Debug)]
struct Judge {
    /// `None` believes anybody.
    by: Option<(ServerName<'static>, Arc<WebPkiServerVerifier>)>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.by {
            None => Ok(ServerCertVerified::assertion()),
            Some((name, roots)) => {
                roots.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
