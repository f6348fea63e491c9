use std::time::Duration;

use http_body_util::BodyExt;
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};
use tower::ServiceExt;
use tower_sd_balance::{Endpointer, FixedInstancer};
use tower_sd_http::{HttpEndpoint, HttpFactory};
use tower_sd_testkit::script::{Reply, Script};

use super::{Sent, balanced, endpointer, fetch, get, instance, polite};

type Endpoints = Endpointer<HttpEndpoint<Sent>>;

fn in_flight(endpointer: &Endpoints) -> usize {
    endpointer.report().endpoints.iter().map(|endpoint| endpoint.in_flight).sum()
}

async fn slow() -> Script {
    let pause = Duration::from_millis(50);
    let answer = Reply::new(200).chunk("o").pause(pause).chunk("k");
    Script::answering(move |_| answer.clone()).await.expect("loopback")
}

#[tokio::test]
async fn request_is_in_flight_until_its_body_has_ended() {
    let slow = slow().await;
    let endpointer = endpointer([instance(&slow)]);
    let answer = balanced(&endpointer).oneshot(get()).await.expect("begins");
    assert_eq!(in_flight(&endpointer), 1);
    let mut body = answer.into_body();
    body.frame().await.expect("a frame").expect("whole");
    assert_eq!(in_flight(&endpointer), 1);
    while let Some(frame) = body.frame().await {
        frame.expect("whole");
    }
    assert_eq!(in_flight(&endpointer), 0);
}

#[tokio::test]
async fn request_is_over_when_its_body_is_dropped() {
    let slow = slow().await;
    let endpointer = endpointer([instance(&slow)]);
    let answer = balanced(&endpointer).oneshot(get()).await.expect("begins");
    drop(answer);
    assert_eq!(in_flight(&endpointer), 0);
}

#[tokio::test]
async fn nothing_is_left_after_close() {
    let (one, two) = (polite().await, polite().await);
    let before = Handle::current().metrics().num_alive_tasks();
    let factory = HttpFactory::<Sent>::new();
    let instancer = FixedInstancer::new([instance(&one), instance(&two)]);
    let endpointer = Endpointer::new(&instancer, factory.clone());
    let client = balanced(&endpointer);
    for _ in 0..10 {
        fetch(&client, get()).await.expect("answers");
    }
    assert_eq!((one.n_connections(), two.n_connections()), (1, 1));
    endpointer.close().await;
    factory.close().await;
    let gone = async {
        while Handle::current().metrics().num_alive_tasks() > before {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), gone).await.expect("every task ends");
    assert_eq!((one.n_connections(), two.n_connections()), (0, 0));
}
