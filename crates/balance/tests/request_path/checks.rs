//! Active checks eject endpoints, and never empty the set.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_sd_balance::{
    ActiveCheck, Balance, BalanceLayer, BoxError, EndpointState, Endpointer, FixedInstancer,
    Instance, LeastLoaded, RetryLayer, RetryPolicy, RoundRobin,
};

use crate::support::{Mode, Registry, World, answers, balance, call, report, settle};

type Checks = Arc<Mutex<HashMap<String, ActiveCheck>>>;
type Service = BoxCloneSyncService<(), String, BoxError>;

struct Fleet {
    endpointer: Endpointer<Service>,
    balance: Balance<Service>,
    checks: Checks,
    /// Those whose requests fail.
    broken: Arc<Mutex<BTreeSet<String>>>,
}

impl Fleet {
    async fn start(hosts: &[&str]) -> Self {
        let (checks, broken) = (Checks::default(), Arc::<Mutex<BTreeSet<String>>>::default());
        let instancer = FixedInstancer::new(hosts.iter().map(|host| Instance::new(*host, 1)));
        let begun = (Arc::clone(&checks), Arc::clone(&broken));
        let endpointer = Endpointer::with(&instancer, move |instance| {
            let (checks, broken) = begun.clone();
            async move {
                let host = instance.host().to_owned();
                checks.lock().unwrap().insert(host.clone(), ActiveCheck::begin());
                Ok(Service::new(service_fn(move |()| {
                    let is_broken = broken.lock().unwrap().contains(&host);
                    let answer = if is_broken { Err("broken".into()) } else { Ok(host.clone()) };
                    std::future::ready(answer)
                })))
            }
        });
        settle().await;
        let balance = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
        Self { endpointer, balance, checks, broken }
    }

    async fn fails(&self, hosts: &[&str]) {
        for host in hosts {
            self.checks.lock().unwrap()[*host].fails(format!("{host} is ill"));
        }
        settle().await;
    }

    async fn passes(&self, host: &str) {
        self.checks.lock().unwrap()[host].passes();
        settle().await;
    }

    /// Who answers, of the hosts of 40 requests.
    async fn answering(&self) -> String {
        let mut hosts = BTreeSet::new();
        for _ in 0..40 {
            hosts.extend(self.balance.clone().oneshot(()).await);
        }
        settle().await;
        hosts.into_iter().collect()
    }
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_fails_its_checks_is_ejected_until_it_passes() {
    let fleet = Fleet::start(&["a", "b", "c"]).await;
    assert_eq!(fleet.answering().await, "abc", "before the first check all are used");
    let mut guard = fleet.balance.lease().await.unwrap().1;
    while guard.instance().as_str() != "a:1" {
        guard = fleet.balance.lease().await.unwrap().1;
    }
    fleet.fails(&["a"]).await;
    assert_eq!(guard.stats().why().unwrap(), "a is ill");
    assert_eq!(fleet.answering().await, "bc");
    let report = fleet.endpointer.report();
    let a = report.endpoints.iter().find(|it| it.instance.host() == "a").unwrap();
    assert_eq!((a.state, report.endpoints.len()), (EndpointState::Ejected, 3));
    assert_eq!(a.error.as_deref(), Some("a is ill"));
    // It stays out for as long as it fails, and no request decides about it.
    sleep(Duration::from_secs(100)).await;
    assert_eq!(fleet.answering().await, "bc");
    fleet.passes("a").await;
    assert_eq!(fleet.answering().await, "abc");
}

#[tokio::test(start_paused = true)]
async fn all_that_fail_get_the_requests() {
    let fleet = Fleet::start(&["a", "b"]).await;
    fleet.fails(&["a", "b"]).await;
    assert_eq!(fleet.answering().await, "ab");
    assert!(fleet.endpointer.report().panic);
    fleet.passes("b").await;
    assert_eq!(fleet.answering().await, "b");
    assert!(!fleet.endpointer.report().panic);
}

/// Half of four would be the limit of ejections.
#[tokio::test(start_paused = true)]
async fn checks_do_not_count_towards_the_ejections_of_requests() {
    let fleet = Fleet::start(&["a", "b", "c", "d"]).await;
    fleet.fails(&["c", "d"]).await;
    fleet.broken.lock().unwrap().insert("a".into());
    fleet.answering().await;
    let n_ejected = |endpointer: &Endpointer<Service>| {
        let endpoints = endpointer.report().endpoints;
        endpoints.iter().filter(|it| it.state == EndpointState::Ejected).count()
    };
    assert_eq!(n_ejected(&fleet.endpointer), 3);
    assert_eq!(fleet.answering().await, "b");
}

/// An instance that really fails is not acquitted because the others' checks fail.
#[tokio::test(start_paused = true)]
async fn failing_checks_of_others_end_no_ejection() {
    let fleet = Fleet::start(&["a", "b", "c", "d"]).await;
    fleet.broken.lock().unwrap().insert("a".to_owned());
    fleet.answering().await;
    assert_eq!(fleet.answering().await, "bcd");
    fleet.fails(&["b", "c", "d"]).await;
    for _ in 0..10 {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(fleet.answering().await, "bcd");
    }
    assert!(fleet.endpointer.report().panic);
}

#[tokio::test(start_paused = true)]
async fn no_request_decides_about_an_endpoint_that_fails_its_checks() {
    let fleet = Fleet::start(&["a", "b"]).await;
    fleet.broken.lock().unwrap().insert("a".into());
    fleet.answering().await;
    fleet.fails(&["a"]).await;
    fleet.broken.lock().unwrap().clear();
    // The ejection by requests is over, that by checks is not.
    sleep(Duration::from_secs(5)).await;
    assert_eq!(fleet.answering().await, "b");
    fleet.passes("a").await;
    assert_eq!(fleet.answering().await, "ab");
}

/// Nothing but ejected ones is left, and one of them fails.
#[tokio::test(start_paused = true)]
async fn retry_goes_to_another_ejected_instance() {
    let fleet = Fleet::start(&["a", "b"]).await;
    fleet.fails(&["a", "b"]).await;
    fleet.broken.lock().unwrap().insert("a".to_owned());
    let policy = RetryPolicy::new().max_attempts(2).idempotent().without_budget().with_seed(1);
    let balance = BalanceLayer::new(LeastLoaded::new()).with_seed(1);
    let client = RetryLayer::new(policy).layer(balance.layer(fleet.endpointer.clone()));
    for _ in 0..200 {
        assert_eq!(client.clone().oneshot(()).await.unwrap(), "b");
    }
}

/// Its readiness fails at first, and its factory runs again.
#[tokio::test(start_paused = true)]
async fn endpoint_that_is_made_anew_is_out_until_its_own_check_passes() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    let (checks, make) = (Arc::<Mutex<Vec<ActiveCheck>>>::default(), world.factory());
    let begun = Arc::clone(&checks);
    let endpointer = Endpointer::with(&registry, move |instance: Instance| {
        if instance.host() == "a" {
            begun.lock().unwrap().push(ActiveCheck::begin());
        }
        make(instance)
    });
    settle().await;
    let client = balance(&endpointer);
    let check = |nth: usize| checks.lock().unwrap()[nth].clone();
    check(0).fails("it is ill");
    settle().await;
    world.ready("a", Mode::Fails);
    world.ready("b", Mode::Fails);
    for _ in 0..20 {
        let _refused = call(&client).await;
    }
    ["a", "b"].iter().for_each(|host| world.ready(host, Mode::Works));
    sleep(Duration::from_secs(30)).await;
    assert!(world.n_made("a") > 1, "{}", world.n_made("a"));
    assert_eq!(report(&endpointer, "a").unwrap().state, EndpointState::Ejected);
    let newest = world.n_made("a") - 1;
    check(0).passes();
    settle().await;
    assert_eq!(answers(&client, 4).await, ["b"; 4], "the first check no longer decides");
    check(newest).passes();
    settle().await;
    check(0).fails("it is ill");
    settle().await;
    assert_eq!(report(&endpointer, "a").unwrap().state, EndpointState::Ready);
}
