use std::time::Duration;

use tokio::time::Instant;

use super::server::Server;

async fn gateway(servers: &[&Server]) -> Server {
    let addresses: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
    let registry = format!("static://{}", addresses.join(","));
    Server::run(&["gateway", "--registry", &registry]).await
}

/// How many calculations a server has answered.
async fn answered(server: &Server) -> u64 {
    let metrics = server.ask("GET", "/metrics").await.body;
    let count = |line: &str| line.strip_prefix("arithmetic_request_seconds_count ")?.parse().ok();
    metrics.lines().find_map(count).expect("a count")
}

#[tokio::test]
async fn calculations_come_in_and_go_out_balanced() {
    let (one, two) = (Server::start().await, Server::start().await);
    let gateway = gateway(&[&one, &two]).await;
    for n in 0..10 {
        let answer = gateway.ask("POST", &format!("/calculate/Add/{n}/3")).await;
        let expected = format!(r#"{{"result":{},"error":null}}"#, n + 3);
        assert_eq!((answer.status, answer.body), (200, expected));
    }
    let (first, second) = (answered(&one).await, answered(&two).await);
    assert_eq!(first + second, 10);
    // Each of the gateway's threads takes turns by itself.
    let n_threads = std::thread::available_parallelism().map_or(2, |n| n.get() + 1);
    assert!(
        first.abs_diff(second) <= u64::try_from(n_threads).expect("few"),
        "{first} and {second}"
    );
    assert_eq!(answered(&gateway).await, 10);
}

#[tokio::test]
async fn callers_mistake_stays_the_callers() {
    let server = Server::start().await;
    let gateway = gateway(&[&server]).await;
    let answer = gateway.ask("POST", "/calculate/Divide/1/0").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body, r#"{"result":null,"error":"division by zero has no result"}"#);
    let answer = gateway.ask("POST", "/calculate/Add/a%20b/0").await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("a b"), "{}", answer.body);
    assert_eq!(gateway.ask("POST", "/subtract").await.status, 404);
    assert_eq!(answered(&server).await, 2);
}

#[tokio::test]
async fn server_that_dies_is_no_matter_while_another_lives() {
    let (one, two) = (Server::start().await, Server::start().await);
    let gateway = gateway(&[&one, &two]).await;
    for n in 0..40 {
        if n == 20 {
            one.process.kill().expect("killed");
        }
        let answer = gateway.ask("POST", "/calculate/Add/2/3").await;
        assert_eq!(answer.status, 200, "{n}: {}", answer.body);
    }
}

#[tokio::test]
async fn server_that_hangs_costs_no_request_more_than_an_attempt() {
    let (one, two) = (Server::start().await, Server::start().await);
    let gateway = gateway(&[&one, &two]).await;
    one.process.suspend().expect("suspended");
    for _ in 0..4 {
        let begun = Instant::now();
        let answer = gateway.ask("POST", "/calculate/Add/2/3").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        // Two seconds at the one that hangs; a busy machine adds some.
        assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    }
    one.process.resume().expect("resumed");
}

#[tokio::test]
async fn empty_set_is_503_with_the_reason_and_the_gateway_lives_on() {
    let server = Server::start().await;
    let with_one = gateway(&[&server]).await;
    server.process.kill().expect("killed");
    let with_none = gateway(&[]).await;
    let reasons = ["none accepts a connection", "the registry lists none"];
    for (gateway, reason) in [with_one, with_none].iter().zip(reasons) {
        let answer = gateway.ask("POST", "/calculate/Add/2/3").await;
        assert_eq!(answer.status, 503);
        assert!(answer.body.contains(reason), "{}", answer.body);
        assert!(answer.body.starts_with(r#"{"result":null,"error":""#), "{}", answer.body);
        assert_eq!(gateway.ask("GET", "/ready").await.status, 200);
        let ended = gateway.process.stop(Duration::from_secs(10)).await.expect("ends");
        assert_eq!(ended.code(), Some(0));
    }
}
