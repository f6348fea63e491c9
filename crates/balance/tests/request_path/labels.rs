//! Requests that belong to some of the members alone.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_sd_balance::{
    BalanceLayer, BoxError, Endpointer, EndpointerConfig, Fallback, FixedInstancer, HedgePolicy,
    Instance, Limits, NoInstances, NoInstancesReason, RequestScope, RetryLayer, RetryPolicy,
    RoundRobin, ScopeLayer, Select, factory_fn,
};

use crate::support::settle;

const MS: Duration = Duration::from_millis(1);

type Versioned = BoxCloneSyncService<u32, String, BoxError>;

/// One instance of v1, which takes 30 ms, and one of v2, which takes 200 ms.
async fn versions(config: EndpointerConfig, is_one_at_a_time: bool) -> Endpointer<Versioned> {
    let versioned = |v: &str| Instance::new(v, 1).with_metadata("version", v);
    let instancer = FixedInstancer::new([versioned("v1"), versioned("v2")]);
    let factory = factory_fn(move |instance: Instance| {
        let took = HashMap::from([("v1", 30), ("v2", 200)])[instance.host()] * MS;
        let service = service_fn(move |_: u32| {
            let host = instance.host().to_owned();
            async move {
                sleep(took).await;
                Ok::<_, BoxError>(host)
            }
        });
        let service = match is_one_at_a_time {
            true => Versioned::new(ServiceBuilder::new().concurrency_limit(1).service(service)),
            false => Versioned::new(service),
        };
        async move { Ok(service) }
    });
    let endpointer = Endpointer::with_config(&instancer, factory, config);
    settle().await;
    endpointer
}

/// Of requests for v2.
fn scope() -> ScopeLayer<impl Fn(&u32) -> RequestScope + Clone> {
    ScopeLayer::new(|_: &u32| RequestScope::new().with_label("v2"))
}

fn by_version() -> Select {
    Select::by_metadata("version", RoundRobin::new())
}

#[tokio::test(start_paused = true)]
async fn hedge_stays_among_members_with_its_label() {
    let endpointer = versions(EndpointerConfig::new(), false).await;
    let (retry, hedge) = RetryPolicy::new().idempotent().hedged(HedgePolicy::after(20 * MS));
    let balance = BalanceLayer::new(by_version()).with_seed(1).layer(endpointer.clone());
    let client = ServiceBuilder::new().layer(scope()).layer(retry).layer(hedge).service(balance);
    for _ in 0..20 {
        assert_eq!(client.clone().oneshot(0).await.unwrap(), "v2");
    }
    let picks: u64 = endpointer.report().endpoints.iter().map(|endpoint| endpoint.picks).sum();
    assert_eq!(picks, 20, "no hedge is sent");
}

#[tokio::test(start_paused = true)]
async fn request_above_a_limit_waits_for_a_member_with_its_label() {
    let config = EndpointerConfig::new().limits(Limits::new().max_requests_per_endpoint(1));
    let endpointer = versions(config, false).await;
    let balance = BalanceLayer::new(by_version()).with_seed(1).layer(endpointer.clone());
    let client = ServiceBuilder::new().layer(scope()).service(balance);
    for answer in join_all((0..2).map(|_| client.clone().oneshot(0))).await {
        assert_eq!(answer.unwrap(), "v2");
    }
}

/// The retry of a request whose only member has failed goes to another version.
#[tokio::test(start_paused = true)]
async fn unknown_label_goes_to_the_fallback_immediately() {
    let endpointer = versions(EndpointerConfig::new(), false).await;
    let balance = BalanceLayer::new(by_version().fallback(Fallback::Label("v1".to_owned())))
        .with_seed(1)
        .layer(endpointer.clone());
    let unknown = ScopeLayer::new(|_: &u32| RequestScope::new().with_label("v3"));
    let retry = RetryLayer::new(RetryPolicy::new());
    let client = ServiceBuilder::new().layer(unknown).layer(retry).service(balance);
    assert_eq!(client.oneshot(0).await.unwrap(), "v1");
}

#[tokio::test(start_paused = true)]
async fn busy_members_with_the_label_are_no_missing_ones() {
    let endpointer = versions(EndpointerConfig::new(), true).await;
    let balance = BalanceLayer::new(by_version().fallback(Fallback::Fail))
        .ready_timeout(100 * MS)
        .with_seed(1)
        .layer(endpointer.clone());
    let client = ServiceBuilder::new().layer(scope()).service(balance);
    let mut answers = join_all((0..2).map(|_| client.clone().oneshot(0))).await.into_iter();
    assert_eq!(answers.next().unwrap().unwrap(), "v2");
    let error = answers.next().unwrap().unwrap_err();
    let none: &NoInstances = error.downcast_ref().unwrap();
    assert_eq!(none.reason(), NoInstancesReason::Busy);
}

/// A place of v1 becomes free; the first that waits is for v2.
#[tokio::test(start_paused = true)]
async fn free_place_goes_to_the_next_that_can_use_it() {
    let config = EndpointerConfig::new().limits(Limits::new().max_requests_per_endpoint(1));
    let endpointer = versions(config, false).await;
    let balance = BalanceLayer::new(by_version()).with_seed(1).layer(endpointer.clone());
    let label = |n: &u32| RequestScope::new().with_label(format!("v{n}"));
    let client = ServiceBuilder::new().layer(ScopeLayer::new(label)).service(balance);
    let begun = Instant::now();
    let answers = [2, 1, 2, 1].map(|n| {
        let answer = client.clone().oneshot(n);
        async move { (answer.await.unwrap(), begun.elapsed() / 5) }
    });
    let answers = join_all(answers).await;
    let expected = [("v2", 40), ("v1", 6), ("v2", 80), ("v1", 12)];
    for ((host, time), (version, fifths)) in answers.into_iter().zip(expected) {
        assert_eq!((host.as_str(), time.as_millis()), (version, fifths));
    }
}
