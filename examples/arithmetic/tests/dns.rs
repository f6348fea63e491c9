//! Server and client as processes, with a real `named` between them.
//!
//! Another program writes its zone.

use std::{
    net::Ipv4Addr,
    process::{Command, Output},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower_sd_testkit::{loopback::free_ports, process::Process, real::Bind, servers::required};

fn arithmetic(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arithmetic"));
    command.args(args);
    command
}

/// Calls until the client has this answer.
async fn answers(registry: &str, service: &str, wanted: &[u8]) -> Output {
    let start = Instant::now();
    loop {
        let add = ["client", "--registry", registry, "--service", service, "Add", "2", "3"];
        let output = arithmetic(&add).output().expect("runs");
        if output.status.success() && output.stdout == wanted {
            return output;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{output:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "needs named: cargo xtask test"]
async fn server_is_found_by_srv_and_by_address() {
    let bind = Bind::start(&required("named")).await.expect("named starts");
    let logs = TempDir::new().expect("a folder");
    let [port] = free_ports(Ipv4Addr::LOCALHOST).expect("a free port");
    let listen = format!("127.0.0.1:{port}");
    let server = ["server", "--registry", "static://", "--listen", &listen];
    let server = Process::start(&mut arithmetic(&server), &logs.path().join("server"));
    let _server = server.expect("starts");
    let lines = format!(
        "update add a.lab.test. 60 A 127.0.0.1
         update add _arithmetic._tcp.lab.test. 60 SRV 0 0 {port} a.lab.test."
    );
    bind.update(&lines).await.expect("named takes an update");
    let server = bind.address();
    let registry = format!("dns://{server}");
    answers(&registry, "_arithmetic._tcp.lab.test", b"5\n").await;
    answers(&format!("{registry}?tcp=true"), &format!("a.lab.test:{port}"), b"5\n").await;
}

#[test]
fn server_fails_because_dns_is_only_read() {
    let server = ["server", "--registry", "dns:///", "--listen", "127.0.0.1:0"];
    let output = arithmetic(&server).output().expect("runs");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the registry is read only"), "{said}");
}
