//! Calls to a server of gRPC's C core with its defaults, in a process of its own.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tonic::{Code, Status, body::Body};
use tower::Layer;
use tower_sd_balance::{BalanceLayer, Endpointer, FixedInstancer, Instance, RoundRobin};
use tower_sd_http::{HttpFactory, TlsClient, TlsConfig};
use tower_sd_tonic::GrpcFactory;

use crate::{echo::echo_client::EchoClient, message};

/// A running server, which ends with its standard input.
struct CCore {
    plain: u16,
    secured: u16,
    root: PathBuf,
    _folder: TempDir,
    process: Child,
}

impl CCore {
    fn start(silence: Duration) -> Self {
        let python = env::var_os("TOWER_SD_TEST_GRPCIO");
        let python = python.expect("TOWER_SD_TEST_GRPCIO, set by `cargo xtask test tonic --slow`");
        let folder = tempfile::tempdir().expect("a folder");
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let [root, key] = ["cert.pem", "key.pem"].map(|file| folder.path().join(file));
        fs::write(&root, cert.pem()).expect("written");
        fs::write(&key, signing_key.serialize_pem()).expect("written");
        let mut process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/grpc/c_core_server.py"))
            .arg(silence.as_secs().to_string())
            .args([&root, &key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut ports = String::new();
        let mut printed = BufReader::new(process.stdout.take().expect("piped"));
        printed.read_line(&mut ports).expect("two ports");
        let mut ports = ports.split_whitespace().map(|port| port.parse().expect("a port"));
        let (plain, secured) = (ports.next().expect("plain"), ports.next().expect("TLS"));
        Self { plain, secured, root, _folder: folder, process }
    }

    fn secured(&self, factory: HttpFactory<Body>) -> HttpFactory<Body> {
        let tls = TlsConfig::new().with_root(self.root.as_path()).with_server_name("localhost");
        factory.tls(TlsClient::new(tls).expect("a certificate"))
    }
}

impl Drop for CCore {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ended = self.process.wait();
    }
}

/// Reads the stream to its end, and returns its number of messages.
async fn read(factory: GrpcFactory, port: u16) -> Result<usize, Status> {
    // C core and Python start slowly on a busy machine.
    let factory = factory.connect_timeout(Duration::from_secs(10));
    let instances = FixedInstancer::new([Instance::new("127.0.0.1", port)]);
    let endpointer = Endpointer::new(&instances, factory);
    let mut client = EchoClient::new(BalanceLayer::new(RoundRobin::new()).layer(endpointer));
    let mut stream = client.repeat(message("hello")).await?.into_inner();
    let mut n_messages = 0;
    while let Some(read) = stream.message().await? {
        assert_eq!(read.text, "hello");
        n_messages += 1;
    }
    Ok(n_messages)
}

mod slow {
    use super::*;

    #[tokio::test]
    #[ignore = "needs grpcio: cargo xtask test tonic --slow"]
    async fn silent_stream_of_200_s_is_not_ended_by_c_core() {
        let server = CCore::start(Duration::from_secs(200));
        let (plain, secured) = tokio::join!(
            read(GrpcFactory::new(), server.plain),
            read(GrpcFactory::over(server.secured(HttpFactory::new())), server.secured),
        );
        assert_eq!((plain.expect("not ended"), secured.expect("not ended over TLS")), (2, 2));
    }

    /// The server's limit is in force: the defaults of HTTP would exceed it.
    #[tokio::test]
    #[ignore = "needs grpcio: cargo xtask test tonic --slow"]
    async fn silent_stream_with_frequent_pings_is_ended_by_c_core() {
        let server = CCore::start(Duration::from_secs(60));
        let http = HttpFactory::new().keep_alive_interval(Duration::from_secs(5));
        let ended = read(GrpcFactory::over(http), server.plain).await.expect_err("too many pings");
        assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
        assert!(ended.message().contains("Too many pings"), "{ended:?}");
    }
}
