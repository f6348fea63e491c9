//! Endpoints that fail have the name looked up.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep, timeout};
use tower::{ServiceBuilder, ServiceExt};
use tower_sd_balance::{BalanceLayer, BoxError, Endpointer, Prioritized};
use tower_sd_http::HttpFactory;
use tower_sd_testkit::{
    loopback::free_ports,
    script::{self, Script},
};

use crate::{
    scene::{SERVICE, Settings},
    support::{NameServer, Reply, a, srv},
};

/// A record that is valid for an hour.
fn lists(port: u16) -> Reply {
    let address = a("a.lab.test.", 3600, [127, 0, 0, 1]);
    Reply::records([srv(SERVICE, 3600, (0, 0, port, "a.lab.test."))]).additional(address)
}

/// The server has moved, and its record is valid for an hour: refused connections have it looked
/// up.
///
/// Hundreds of requests that fail are a lookup a second at most, and ever fewer, down to one in 15
/// s.
#[tokio::test]
async fn refused_connections_refresh_the_name_at_a_limited_rate() {
    let [gone] = free_ports([127, 0, 0, 1].into()).expect("a free port");
    let server = NameServer::start(move |_| lists(gone)).await;
    let following = Settings::of([server.address]).start();
    let endpointer = Endpointer::new(&following.instancer, HttpFactory::new());
    let client = ServiceBuilder::new()
        .layer(BalanceLayer::new(Prioritized::default()))
        .service(endpointer.clone());
    let ask = async || {
        let request = Request::get("http://web/").body(Full::<Bytes>::default()).expect("valid");
        let response = client.clone().oneshot(request).await?;
        response.into_body().collect().await.map_err(BoxError::from)
    };
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        let answers = join_all((0..100).map(|_| ask())).await;
        assert!(answers.iter().all(Result::is_err), "no instance is there");
    }
    let (n_asked, seconds) = (server.asked().len(), start.elapsed().as_secs());
    let most = usize::try_from(seconds).expect("a few") + 2;
    assert!((2..=most).contains(&n_asked), "{n_asked} lookups in {seconds} s");

    let moved = Script::answering(|_| script::Reply::new(200).body("here")).await;
    let moved = moved.expect("loopback");
    let port = moved.address().port();
    server.says(move |_| lists(port));
    let answered = async {
        while ask().await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(40), answered).await.expect("the new record is used");
}
