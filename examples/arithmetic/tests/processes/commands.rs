use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Output,
    time::Duration,
};

use tokio::time::sleep;
use tower_sd_testkit::{loopback::free_ports, process::Process, wire::request};

use super::server::{Server, arithmetic};

fn client(addresses: &[SocketAddr], calculation: [&str; 3]) -> Output {
    let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let registry = format!("static://{}", list.join(","));
    let command = &mut arithmetic();
    command.args(["client", "--registry", &registry]).args(calculation);
    command.output().expect("runs")
}

fn sentence(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[tokio::test]
async fn client_prints_what_one_of_the_servers_answers() {
    let (one, two) = (Server::start().await, Server::start().await);
    for (calculation, result) in [
        (["Add", "2", "3"], "5\n"),
        (["Subtract", "2", "3"], "-1\n"),
        (["Multiply", "-2", "-3"], "6\n"),
        (["Divide", "7", "2"], "3\n"),
    ] {
        let output = client(&[one.address, two.address], calculation);
        assert_eq!(String::from_utf8_lossy(&output.stdout), result, "{output:?}");
        assert_eq!(output.status.code(), Some(0));
    }
}

#[tokio::test]
async fn one_dead_server_of_two_is_no_matter() {
    let live = Server::start().await;
    let dead = Server::start().await;
    dead.process.kill().expect("killed");
    for _ in 0..10 {
        let output = client(&[dead.address, live.address], ["Add", "2", "3"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "5\n", "{output:?}");
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

#[tokio::test]
async fn service_answers_in_json() {
    let server = Server::start().await;
    let answer = server.ask("POST", "/calculate/Add/2/3").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"result":5,"error":null}"#));
    let too_large = format!("/calculate/Add/{}/1", i64::MAX);
    for (target, error) in [
        ("/calculate/Divide/1/0", "division by zero has no result"),
        ("/calculate/Add/1.5/0", r#"\"1.5\" is not an integer of 64 bits"#),
        (
            "/calculate/Add/1/9223372036854775808",
            "\\\"9223372036854775808\\\" is not an integer of 64 bits",
        ),
        (&too_large, "the result does not fit into 64 bits"),
        ("/calculate/add/1/0", r#"\"add\" is not one of Add, Subtract, Multiply, Divide"#),
    ] {
        let answer = server.ask("POST", target).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.body, format!(r#"{{"result":null,"error":"{error}"}}"#));
    }
    assert_eq!(server.ask("GET", "/calculate/Add/2/3").await.status, 405);
    assert_eq!(server.ask("GET", "/nothing").await.status, 404);
}

#[tokio::test]
async fn health_has_details() {
    let server = Server::start().await;
    let answer = server.ask("GET", "/health").await;
    assert_eq!(answer.status, 200);
    let health: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(health["status"], "passing");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert!(health["uptime_seconds"].is_u64(), "{health}");
}

#[tokio::test]
async fn server_is_ready_and_has_metrics_of_what_it_has_done() {
    let server = Server::start().await;
    let answer = server.ask("GET", "/ready").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ready"));
    server.ask("POST", "/calculate/Add/2/3").await;
    server.ask("POST", "/calculate/Divide/1/0").await;
    let metrics = server.ask("GET", "/metrics").await.body;
    for line in [
        r#"arithmetic_requests_total{method="POST",code="200"} 1"#,
        r#"arithmetic_requests_total{method="POST",code="400"} 1"#,
        "arithmetic_request_seconds_count 2",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn server_logs_requests_and_its_end_on_demand() {
    let mut server = arithmetic();
    let server = server.args(["server", "--registry", "static://", "--listen", "127.0.0.1:0"]);
    let log = tempfile::TempDir::new().expect("a folder");
    let path = log.path().join("log");
    let server = Process::start(server.env("RUST_LOG", "info"), &path).expect("starts");
    let said = || std::fs::read_to_string(&path).unwrap_or_default();
    let address = loop {
        let text = said();
        if let Some(address) = text.lines().find_map(|line| line.strip_prefix("listening on ")) {
            break address.parse().expect("an address");
        }
        sleep(Duration::from_millis(5)).await;
    };
    request(address, "POST", "/calculate/Add/2/3", "").await.expect("answers");
    server.stop(Duration::from_secs(10)).await.expect("ends");
    let text = said();
    let request = text.lines().find(|line| line.contains("/calculate/Add/2/3"));
    let request = request.unwrap_or_else(|| panic!("{text}"));
    assert!(request.contains("status") && request.contains("200"), "{request}");
    assert!(text.contains("stopped by SIGTERM: serve done, ready done, live done"), "{text}");
}

#[tokio::test]
async fn server_ends_well_on_a_signal() {
    let server = Server::start().await;
    let status = server.process.stop(Duration::from_secs(10)).await.expect("ends");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn registry_that_is_none_is_refused_in_a_sentence() {
    let refused = [
        ("pigeon://loft", "no registry has the scheme"),
        ("memory:", "not a URL such as scheme://host:port; the schemes are static"),
    ];
    for (url, says) in refused {
        for command in [&["server"][..], &["client", "Add", "1", "2"]] {
            let output = arithmetic().args(command).args(["--registry", url]).output();
            let sentence = sentence(&output.expect("runs"));
            assert!(sentence.contains(says), "{sentence}");
        }
    }
}

#[tokio::test]
async fn no_request_of_the_demo_fails() {
    let output = arithmetic().args(["demo", "--seconds", "4"]).output().expect("runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(" requests, "), "{text}");
    assert!(text.contains(" retries, 0 failed\n"), "{text}");
    assert!(!text.contains(" 0 retries"), "{text}");
    for server in ["server-1", "server-2", "server-3", "server-4", "server-5"] {
        assert!(!text.contains(&format!("{server} 0")), "{text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
}

#[tokio::test]
async fn demo_without_retry_fails_requests_that_die_with_a_server() {
    let demo = ["demo", "--seconds", "4", "--no-retry"];
    let output = arithmetic().args(demo).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let sentence = String::from_utf8(output.stderr).expect("text");
    assert!(sentence.contains("requests failed, first: "), "{sentence}");
    assert!(sentence.contains("at server-3"), "{sentence}");
}
