//! Servers and networks that drop EDNS or UDP.

use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use tokio::time::Instant;

use crate::{
    scene::{Following, SERVICE, Settings, one},
    support::{Asked, NameServer, Reply, a, srv},
};

/// Follows a server with this script, with `timeout` for each response.
async fn follow(
    timeout: Duration,
    script: impl FnMut(&Asked) -> Reply + Send + 'static,
) -> (NameServer, Following) {
    let server = NameServer::start(script).await;
    let mut settings = Settings::of([server.address]);
    settings.dns = settings.dns.timeout(timeout);
    (server, settings.start())
}

/// RFC 6891 §7; without the server's first response the time would be over.
#[tokio::test]
async fn server_that_rejects_edns_is_queried_without_it() {
    for code in [ResponseCode::FormErr, ResponseCode::NotImp] {
        let (server, mut following) = follow(TIMEOUT, move |asked| match asked.room {
            Some(_) => Reply::code(code),
            None => one(),
        })
        .await;
        let start = Instant::now();
        following.sees(&["10.0.0.1:80"]).await;
        assert!(start.elapsed() < TIMEOUT / 2, "{:?}", start.elapsed());

        server.is_asked_again(4).await;
        let n_rejected = server.asked().iter().filter(|asked| asked.room.is_some()).count();
        assert_eq!(n_rejected, 1, "its way is remembered: {:?}", server.asked());
    }
}

#[tokio::test]
async fn server_that_drops_edns_is_queried_without_it() {
    let (server, mut following) = follow(TIMEOUT, |asked| match (asked.room, asked.tcp) {
        (None, false) => one(),
        _ => Reply::silence(),
    })
    .await;
    following.sees(&["10.0.0.1:80"]).await;
    let n_before = server.asked().iter().filter(|asked| asked.room.is_some()).count();
    server.is_asked_again(4).await;
    let n_dropped = server.asked().iter().filter(|asked| asked.room.is_some()).count();
    assert_eq!(n_dropped, n_before, "its way is remembered: {:?}", server.asked());
}

/// A firewall that drops UDP. Its way back is found within one timeout.
#[tokio::test]
async fn server_that_is_silent_over_udp_is_queried_over_tcp() {
    let (server, mut following) = follow(TIMEOUT, |asked| match asked.tcp {
        true => one(),
        false => Reply::silence(),
    })
    .await;
    following.sees(&["10.0.0.1:80"]).await;
    assert!(following.subscription.stats().errors == 0, "within one timeout");
    server.says(|asked| match asked.tcp {
        true => Reply::silence(),
        false => Reply::records([srv(SERVICE, 0, (0, 0, 81, "a.lab.test."))]).additional(a(
            "a.lab.test.",
            0,
            [10, 0, 0, 1],
        )),
    });
    following.sees(&["10.0.0.1:81"]).await;
}

/// Consul truncates over UDP without a word.
#[tokio::test]
async fn server_queried_over_tcp_first_is_never_queried_over_udp() {
    let server = NameServer::start(|asked| match asked.tcp {
        true => Reply::silence(),
        false => one(),
    })
    .await;
    let mut following = Settings::of([server.address]).over_tcp().start();
    let error = following.fails().await;
    assert!(error.contains("no response in time"), "{error}");
    assert!(server.asked().iter().all(|asked| asked.tcp), "{:?}", server.asked());
}

/// Large enough for a busy machine: half of it is a limit.
const TIMEOUT: Duration = Duration::from_secs(4);
