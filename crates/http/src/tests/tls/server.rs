//! A server with its own certificates that answers with the protocol in use.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tower_sd_balance::Instance;

use super::super::Sent;
use crate::TlsConfig;

/// Who signs the certificates of a test.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Its connections die with it.
pub(super) struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    certificates: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    _tasks: JoinSet<()>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("signs itself"))
    }

    pub(super) fn issue(&self, name: &str) -> Identity {
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("signs");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// The service's name is `arithmetic`.
    pub(super) fn trusted(&self) -> TlsConfig {
        TlsConfig::new().with_root(self.pem()).with_server_name("arithmetic")
    }
}

impl Identity {
    /// The settings of a server; where `clients` is given, of one that requires their certificates.
    pub(super) fn serves(&self, clients: Option<&Authority>) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.0.der().clone()).expect("an authority");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("roots"))
            }
        };
        builder.with_single_cert(self.chain(), self.key()).expect("they fit")
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM")]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("PEM")
    }
}

impl Server {
    /// Serves `protocols`; where `clients` is given, only to clients with a certificate of it.
    pub(super) async fn start(
        identity: &Identity,
        protocols: &[&str],
        clients: Option<&Authority>,
    ) -> Self {
        let mut config = identity.serves(clients);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (accepted, certificates) = (Arc::<AtomicUsize>::default(), Arc::default());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&certificates);
        tasks.spawn(accept(listener, acceptor, Arc::clone(&accepted), seen));
        Self { address, accepted, certificates, _tasks: tasks }
    }

    pub(super) fn instance(&self) -> Instance {
        Instance::new(self.address.ip().to_string(), self.address.port())
    }

    /// Those of the clients that sent requests since the last call.
    pub(super) fn certificates(&self) -> BTreeSet<Vec<u8>> {
        std::mem::take(&mut self.certificates.lock().expect("no panic"))
    }

    pub(super) fn n_accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: Arc<AtomicUsize>,
    certificates: Arc<Mutex<BTreeSet<Vec<u8>>>>,
) {
    let mut peers = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("accepts");
        accepted.fetch_add(1, Ordering::SeqCst);
        let (acceptor, certificates) = (acceptor.clone(), Arc::clone(&certificates));
        peers.spawn(async move {
            // A client that does not trust the server ends the handshake.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let shown = shown.map(|certificate| certificate.to_vec());
            let answer = service_fn(move |request| {
                certificates.lock().expect("no panic").extend(shown.clone());
                std::future::ready(answer(&request))
            });
            let io = TokioIo::new(stream);
            if is_http2 {
                let executor = hyper_util::rt::TokioExecutor::new();
                let served = conn::http2::Builder::new(executor).serve_connection(io, answer).await;
                drop(served);
            } else {
                let served = conn::http1::Builder::new().serve_connection(io, answer).await;
                drop(served);
            }
        });
    }
}

/// The version and the URI that the server sees.
fn answer(request: &Request<Incoming>) -> Result<Response<Sent>, std::convert::Infallible> {
    let seen = format!("{:?} {}", request.version(), request.uri());
    Ok(Response::new(Full::new(Bytes::from(seen))))
}
