//! The service over gRPC, as processes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Output},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower_sd::grpc::GrpcFactory;
use tower_sd::{FixedInstancer, Instance, endpoint::Endpointer};
use tower_sd_testkit::{loopback::free_ports, process::Process};

struct Server {
    process: Process,
    address: SocketAddr,
    log: TempDir,
}

impl Server {
    async fn start() -> Self {
        let log = TempDir::new().expect("a folder");
        let path = log.path().join(LOG);
        let listen = ["server", "--grpc", "--registry", "static://", "--listen", "127.0.0.1:0"];
        let mut command = arithmetic();
        command.args(listen).env("RUST_LOG", "arithmetic=info");
        let process = Process::start(&mut command, &path).expect("starts");
        let deadline = Instant::now() + Duration::from_secs(10);
        let address = loop {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let line = text.strip_prefix("listening on ").and_then(|text| text.strip_suffix('\n'));
            if let Some(address) = line {
                break address.parse().expect("an address");
            }
            assert!(Instant::now() < deadline, "the server prints: {text:?}");
            sleep(Duration::from_millis(5)).await;
        };
        Self { process, address, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path().join(LOG)).expect("the log")
    }
}

fn arithmetic() -> Command {
    Command::new(env!("CARGO_BIN_EXE_arithmetic"))
}

fn client(addresses: &[SocketAddr], calculation: [&str; 3]) -> Output {
    let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let registry = format!("static://{}", list.join(","));
    let mut command = arithmetic();
    command.args(["client", "--grpc", "--registry", &registry]).args(calculation);
    command.output().expect("runs")
}

fn sentence(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[tokio::test]
async fn client_prints_what_one_of_the_servers_answers() {
    let (live, dead) = (Server::start().await, Server::start().await);
    let ended = dead.process.stop(Duration::from_secs(10)).await.expect("ends");
    assert_eq!(ended.code(), Some(0));
    for (calculation, result) in [
        (["Add", "2", "3"], "5\n"),
        (["Subtract", "2", "3"], "-1\n"),
        (["Multiply", "-2", "-3"], "6\n"),
        (["Divide", "7", "2"], "3\n"),
    ] {
        let output = client(&[dead.address, live.address], calculation);
        assert_eq!(String::from_utf8_lossy(&output.stdout), result, "{output:?}");
    }
}

#[tokio::test]
async fn call_is_logged_as_a_request_is() {
    let server = Server::start().await;
    let output = client(&[server.address], ["Add", "2", "3"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let log = server.log();
    assert!(log.contains("path=\"/arithmetic.v1.Arithmetic/Calculate\" status=200"), "{log}");
}

#[tokio::test]
async fn server_reports_that_its_service_is_served() {
    let server = Server::start().await;
    let instance = Instance::new(server.address.ip().to_string(), server.address.port());
    let instancer = FixedInstancer::new([instance]);
    for (service, serves) in [("", true), ("arithmetic.v1.Arithmetic", true), ("other", false)] {
        let factory = GrpcFactory::new().health(service);
        let ready = Endpointer::new(&instancer, factory).ready(Duration::from_secs(2)).await;
        assert_eq!(ready.is_ok(), serves, "{service:?}: {ready:?}");
    }
}

#[tokio::test]
async fn client_without_a_result_prints_the_reason() {
    let server = Server::start().await;
    let complaint = |calculation| sentence(&client(&[server.address], calculation));
    assert_eq!(complaint(["Divide", "1", "0"]), "arithmetic: division by zero has no result\n");
    assert!(complaint(["Add", "one", "0"]).contains("\"one\" is not an integer"));
    assert!(complaint(["Power", "1", "0"]).contains("\"Power\" is not one of Add, Subtract"));
    let [port] = free_ports(Ipv4Addr::LOCALHOST).expect("a free port");
    let nobody = SocketAddr::from(([127, 0, 0, 1], port));
    let complaint = sentence(&client(&[nobody], ["Add", "1", "2"]));
    assert!(complaint.contains("no instances"), "{complaint}");
}

const LOG: &str = "log";
