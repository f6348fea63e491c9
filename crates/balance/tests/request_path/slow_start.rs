//! New instances begin with a part of their weight.

use std::time::Duration;

use tokio::time::sleep;
use tower::Layer;
use tower_sd_balance::{
    Balance, BalanceLayer, Balancer, Endpointer, EndpointerConfig, Instance, LeastLoaded,
    RoundRobin, WeightedRandom, factory_fn,
};

use crate::support::{
    Client, Mode, Registry, World, answers, call, instances, report, settle, start,
};

const SECOND: Duration = Duration::from_secs(1);

struct Ramping {
    registry: Registry,
    endpointer: Endpointer<Client>,
}

impl Ramping {
    /// Four instances that were there first, over 30 s.
    async fn new() -> Self {
        Self::with(Registry::new(&["a", "b", "c", "d"])).await
    }

    async fn with(registry: Registry) -> Self {
        let world = World::default();
        let config = EndpointerConfig::new().slow_start(30 * SECOND);
        let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
        settle().await;
        Self { registry, endpointer }
    }

    fn share(&self, host: &str) -> u8 {
        report(&self.endpointer, host).unwrap().share
    }

    fn client(&self, balancer: impl Balancer) -> Balance<Client> {
        BalanceLayer::new(balancer).with_seed(1).layer(self.endpointer.clone())
    }
}

/// Of 4 000 requests.
async fn requests(client: &Balance<Client>, host: &str) -> usize {
    answers(client, 4_000).await.iter().filter(|answer| *answer == host).count()
}

#[tokio::test(start_paused = true)]
async fn new_instance_gets_a_growing_share_of_every_weighing_balancer() {
    let mut ramping = Ramping::new().await;
    assert_eq!(ramping.share("a"), 100, "the first set is whole");
    ramping.registry.set(&["a", "b", "c", "d", "e"]).await;
    let clients = [
        ramping.client(RoundRobin::new()),
        ramping.client(WeightedRandom::new()),
        ramping.client(LeastLoaded::new()),
    ];
    // Five standard deviations: which seed a thread has depends on its number.
    for (at, expected) in [(0, 50..150), (15, 340..550), (31, 670..930)] {
        sleep(Duration::from_secs(if at == 0 { 0 } else { 15 })).await;
        if at == 31 {
            sleep(2 * SECOND).await;
        }
        for client in &clients {
            let n = requests(client, "e").await;
            assert!(expected.contains(&n), "{at} s: {n}");
        }
    }
    assert_eq!(ramping.share("e"), 100);
}

#[tokio::test(start_paused = true)]
async fn neither_refresh_nor_short_absence_restarts_the_ramp() {
    let mut ramping = Ramping::new().await;
    ramping.registry.set(&["a", "b", "c", "d", "e"]).await;
    sleep(15 * SECOND).await;
    let half = ramping.share("e");
    assert!((45..=55).contains(&half), "{half}");
    let mut changed = instances(&["a", "b", "c", "d", "e"]);
    changed[4] = changed[4].clone().with_metadata("version", "2");
    ramping.registry.set_instances(changed).await;
    assert!(ramping.share("e") >= half);
    ramping.registry.set(&["a", "b", "c", "d"]).await;
    sleep(2 * SECOND).await;
    ramping.registry.set(&["a", "b", "c", "d", "e"]).await;
    assert!(ramping.share("e") >= half);
    assert_eq!(ramping.share("a"), 100);
    ramping.registry.set(&["b", "c", "d", "e"]).await;
    sleep(60 * SECOND).await;
    ramping.registry.set(&["a", "b", "c", "d", "e"]).await;
    assert_eq!((ramping.share("a"), ramping.share("e")), (10, 100), "it was gone for long");
    ramping.registry.set(&["v", "w"]).await;
    assert_eq!((ramping.share("v"), ramping.share("w")), (100, 100), "all are new");
}

/// It cannot be read, is empty, lists a part, and then what it has listed before.
#[tokio::test(start_paused = true)]
async fn ramp_goes_on_while_the_registry_restarts() {
    let hosts = ["a", "b", "c", "d", "e"];
    let mut ramping = Ramping::with(Registry::guarded(&hosts[..4])).await;
    ramping.registry.set(&hosts).await;
    let mut expected = 10..=10;
    for step in 0..=5 {
        let share = ramping.share("e");
        assert!(expected.contains(&share), "step {step}: {share}");
        for host in &hosts[..4] {
            assert_eq!(ramping.share(host), 100, "step {step}: {host}");
        }
        match step {
            0 | 1 => ramping.registry.fail("connection refused").await,
            2 => ramping.registry.set(&[]).await,
            3 => ramping.registry.set(&hosts[1..3]).await,
            _ => ramping.registry.set(&hosts).await,
        }
        sleep(6 * SECOND).await;
        expected = (step + 1) * 20 - 5..=(step + 1) * 20 + 5;
    }
    assert_eq!(ramping.share("e"), 100);
}

#[expect(clippy::disallowed_types, reason = "registries have wall-clock times")]
fn unix_now() -> Duration {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap()
}

#[tokio::test(start_paused = true)]
async fn ramp_counts_from_the_start_that_the_registry_reports() {
    let mut ramping = Ramping::new().await;
    let now = unix_now();
    let started = |host: &str, ago: u64| {
        let at = now.checked_sub(Duration::from_secs(ago)).unwrap();
        Instance::new(host, 1).with_started_at_ms(u64::try_from(at.as_millis()).unwrap())
    };
    let mut all = instances(&["a", "b", "c", "d"]);
    all.extend([started("old", 3_600), started("recent", 15), started("new", 0)]);
    ramping.registry.set_instances(all.clone()).await;
    assert_eq!(ramping.share("old"), 100);
    let recent = ramping.share("recent");
    assert!((45..=60).contains(&recent), "{recent}");
    assert!(ramping.share("new") <= 15);
    // A restart at the same address.
    all[4] = started("old", 0);
    ramping.registry.set_instances(all).await;
    assert!(ramping.share("old") <= 15);
}

/// Its share was whole, because it was of the first set.
#[tokio::test(start_paused = true)]
async fn change_of_an_instance_that_has_just_started_begins_no_ramp() {
    let (mut registry, world) = (Registry::new(&[]), World::default());
    let config = EndpointerConfig::new().slow_start(30 * SECOND);
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    let now = u64::try_from(unix_now().as_millis()).unwrap();
    let (a, b) = (Instance::new("a", 1).with_started_at_ms(now), Instance::new("b", 1));
    registry.set_instances(vec![a.clone(), b.clone()]).await;
    for changed in [vec![a.clone().with_zone("z"), b.clone()], vec![a, b.with_started_at_ms(now)]] {
        registry.set_instances(changed).await;
        let share = |host| report(&endpointer, host).unwrap().share;
        assert_eq!((share("a"), share("b")), (100, 100));
    }
}

/// The steps of the ramp are no whole number of milliseconds.
#[tokio::test(start_paused = true)]
async fn window_of_any_length_ends() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let config = EndpointerConfig::new().slow_start(Duration::from_nanos(1_234_567_891));
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    settle().await;
    registry.set(&["a", "b"]).await;
    assert_eq!(report(&endpointer, "b").unwrap().share, 10);
    sleep(2 * SECOND).await;
    assert_eq!(report(&endpointer, "b").unwrap().share, 100);
}

#[tokio::test(start_paused = true)]
async fn no_instance_starts_slowly_by_default() {
    let (mut registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = crate::support::endpointer(&registry, &world).await;
    registry.set(&["a", "b", "c"]).await;
    assert_eq!(report(&endpointer, "c").unwrap().share, 100);
}

/// Its endpoint has kept the share with which it left.
#[tokio::test(start_paused = true)]
async fn instance_that_returns_to_its_endpoint_has_its_whole_weight() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let config = EndpointerConfig::new().slow_start(5 * SECOND);
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    world.answer("e", Mode::Hangs);
    settle().await;
    let client = BalanceLayer::new(RoundRobin::new()).with_seed(1).layer(endpointer.clone());
    #[expect(clippy::disallowed_types, reason = "registries have wall-clock times")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let started = |age: u64| {
        let at = u64::try_from(now.as_millis()).unwrap() - age * 1_000;
        let instance = |host| Instance::new(host, 1).with_started_at_ms(at);
        vec![instance("a"), instance("e")]
    };
    registry.set_instances(started(0)).await;
    let share = || report(&endpointer, "e").unwrap().share;
    assert_eq!(share(), 10);
    let client = &client;
    let hanging: Vec<_> = (0..30)
        .map(|_| {
            let client = client.clone();
            start(async move { call(&client).await })
        })
        .collect();
    settle().await;
    assert!(world.n_calls("e") > 0);
    registry.set(&["a"]).await;
    sleep(6 * SECOND).await;
    registry.set_instances(started(7)).await;
    settle().await;
    assert_eq!((share(), world.n_made("e")), (100, 1));
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn window_without_bound_is_one() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let config = EndpointerConfig::new().slow_start(Duration::MAX);
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    settle().await;
    registry.set(&["a", "b"]).await;
    sleep(SECOND).await;
    registry.set(&["b"]).await;
    settle().await;
    assert_eq!(report(&endpointer, "b").unwrap().share, 10);
    assert!(report(&endpointer, "a").is_none());
}
