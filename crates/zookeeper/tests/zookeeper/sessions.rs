//! Sessions that end, and connections that break.

use std::{env, process::Command, time::Duration};

use tokio::{
    join,
    time::{Instant, sleep, timeout},
};
use tower_sd_core::{Instancer, Registration, RegistrationState};
use tower_sd_testkit::{
    process::Process,
    proxy::{Fault, Proxy},
    real,
    stall::with_stall,
    wait::{fresh_with, shows_that},
};
use tower_sd_zookeeper::{Acl, ZooKeeper, ZooKeeperConfig};

use crate::support::{
    TTL, ZooKeeperFixture, holds, instance, is_stale, newest, note, on_every_zookeeper,
    operator::Operator,
};

/// The servers end the session while its process is cut off.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn expired_session_is_registered_again_with_one_node() {
    on_every_zookeeper(async |fixture| {
        let (proxy, zookeeper) = behind_proxy(fixture, TTL).await;
        let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
        let handle = handle.expect("it registers");
        let mut subscription = zookeeper.instancer("s").subscribe();
        shows_that(&mut subscription, "a", BOUND, fresh_with(1)).await;
        let mut operator = fixture.operator().await;
        let (_, before) = operator.get("/services/s/a").await.expect("a node");
        proxy.set(Fault::Refuse).await;
        shows_that(&mut subscription, "a stale one", BOUND, is_stale).await;
        holds("the session expires", BOUND, async || {
            fixture.operator().await.get("/services/s/a").await.is_none()
        })
        .await;
        proxy.set(Fault::None).await;
        let start = Instant::now();
        let mut operator = fixture.operator().await;
        holds("one node of another session", BOUND, async || {
            let node = operator.get("/services/s/a").await;
            node.is_some_and(|(_, stat)| stat.owner != before.owner && stat.owner != 0)
        })
        .await;
        note(&format!("registered again {:?} after the network was back", start.elapsed()));
        assert_eq!(operator.children("/services/s").await, ["a"]);
        shows_that(&mut subscription, "a", BOUND, fresh_with(1)).await;
        // The watches of the new session work.
        operator.create("/services/s/b", br#"{"address":"h","port":1}"#, PERSISTENT).await;
        shows_that(&mut subscription, "a and b", BOUND, fresh_with(2)).await;
        assert!(matches!(handle.state(), RegistrationState::Registered), "{handle:?}");
    })
    .await;
}

/// The node follows its new session, however long the servers were away.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn new_session_has_its_node_within_a_second() {
    on_every_zookeeper(async |fixture| {
        let proxy = Proxy::start(fixture.server.address()).await.expect("a proxy");
        let config = ZooKeeperConfig::new([proxy.address().to_string()]);
        // The pauses of attempts were a third of it.
        let config = config.session_timeout(Duration::from_secs(10));
        let zookeeper = ZooKeeper::new(config).expect("good settings");
        let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
        let _handle = handle.expect("it registers");
        proxy.set(Fault::Refuse).await;
        sleep(Duration::from_secs(40)).await;
        let mut operator = fixture.operator().await;
        let (mut n_connections, mut connected) = (proxy.n_accepted(), None);
        proxy.set(Fault::None).await;
        let again = holds("it is registered again", BOUND, async || {
            // The last connection is that of the new session, and older than it.
            if proxy.n_accepted() > n_connections {
                (n_connections, connected) = (proxy.n_accepted(), Some(Instant::now()));
            }
            operator.get("/services/s/a").await.is_some()
        });
        let ((), stall) = with_stall(again).await;
        let took = connected.expect("a connection").elapsed();
        note(&format!("registered again {took:?} after the connection; stalls of {stall:?}"));
        assert!(took < SOON + stall, "{took:?}, stalled for {stall:?}");
    })
    .await;
}

/// By an operator, or by another client that has got hold of its password.
///
/// The client is away meanwhile: ZooKeeper 3.4 resumes for it a session that ends in that moment,
/// and answers nothing then.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn session_that_is_killed_has_a_successor() {
    on_every_zookeeper(async |fixture| {
        let (proxy, zookeeper) = behind_proxy(fixture, LONG).await;
        let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
        let handle = handle.expect("it registers");
        let mut subscription = zookeeper.instancer("s").subscribe();
        shows_that(&mut subscription, "a", BOUND, fresh_with(1)).await;
        let mut operator = fixture.operator().await;
        let (_, before) = operator.get("/services/s/a").await.expect("a node");
        proxy.set(Fault::Refuse).await;
        Operator::kill_session(fixture.server.address(), before.owner).await;
        proxy.set(Fault::None).await;
        let start = Instant::now();
        let again = holds("one node of another session", BOUND, async || {
            let node = operator.get("/services/s/a").await;
            node.is_some_and(|(_, stat)| stat.owner != before.owner)
        });
        let ((), stall) = with_stall(again).await;
        let took = start.elapsed();
        // A renewal would find it after 10 s.
        note(&format!("registered again {took:?} after the kill; stalls of {stall:?}"));
        assert!(took < SOON + stall, "{took:?}, stalled for {stall:?}");
        assert_eq!(operator.children("/services/s").await, ["a"]);
        shows_that(&mut subscription, "a", BOUND, fresh_with(1)).await;
        // The watches of the new session work.
        operator.create("/services/s/b", br#"{"address":"h","port":1}"#, PERSISTENT).await;
        shows_that(&mut subscription, "a and b", BOUND, fresh_with(2)).await;
        assert_eq!(handle.stats().lost, 1, "{handle:?}");
    })
    .await;
}

/// A minute is requested, and six seconds are granted.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn granted_timeout_is_the_schedule() {
    let config = real::ZooKeeperConfig::new(newest()).lines(["maxSessionTimeout=6000"]);
    let server = real::ZooKeeper::start(config).await.expect("it starts");
    let proxy = Proxy::start(server.address()).await.expect("a proxy");
    let config = ZooKeeperConfig::new([proxy.address().to_string()]);
    let config = config.session_timeout(Duration::from_secs(60));
    let zookeeper = ZooKeeper::new(config).expect("good settings");
    let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
    let handle = handle.expect("it registers");
    // Pings and renewals for a minute's session would come after 20 s: the servers would end it.
    sleep(Duration::from_secs(9)).await;
    let stats = handle.stats();
    assert!(stats.renewed >= 2 && stats.lost == 0, "{stats:?}");
    assert_eq!(proxy.n_accepted(), 1, "the session and its connection go on");
}

/// What was missed is reported with the watches of the resumed session.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn changes_while_disconnected_are_seen_by_the_same_session() {
    on_every_zookeeper(async |fixture| {
        let (proxy, zookeeper) = behind_proxy(fixture, LONG).await;
        let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
        let handle = handle.expect("it registers");
        let mut operator = fixture.operator().await;
        for (name, port) in [("changes", 2), ("leaves", 3)] {
            let data = format!(r#"{{"address":"h","port":{port}}}"#);
            operator.create(&format!("/services/s/{name}"), data.as_bytes(), PERSISTENT).await;
        }
        let mut subscription = zookeeper.instancer("s").subscribe();
        let mut missing = zookeeper.instancer("missing").subscribe();
        shows_that(&mut subscription, "three", BOUND, fresh_with(3)).await;
        shows_that(&mut missing, "none", BOUND, fresh_with(0)).await;
        proxy.set(Fault::Cut).await;
        operator.set("/services/s/changes", br#"{"address":"h","port":7}"#).await;
        operator.delete("/services/s/leaves").await;
        operator.create("/services/s/comes", br#"{"address":"h","port":1}"#, PERSISTENT).await;
        operator.create("/services/missing/a", br#"{"address":"h","port":1}"#, PERSISTENT).await;
        proxy.set(Fault::None).await;
        shows_that(&mut subscription, "all changes", BOUND, |it| {
            let ids: Vec<_> = it.instances().iter().map(|it| it.id().as_str()).collect();
            let changed = it.instances().iter().any(|it| it.port() == 7);
            it.freshness().is_fresh() && ids == ["a", "changes", "comes"] && changed
        })
        .await;
        shows_that(&mut missing, "one", BOUND, fresh_with(1)).await;
        assert_eq!(handle.stats().lost, 0, "the session goes on: {handle:?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn broken_connections_leave_one_node_and_no_foreign_deletion() {
    on_every_zookeeper(async |fixture| break_connections(fixture, 100).await).await;
}

mod slow {
    use super::*;

    #[tokio::test]
    #[ignore = "slow: 1 000 connections"]
    async fn thousand_broken_connections_leave_one_node_and_others_alone() {
        on_every_zookeeper(async |fixture| break_connections(fixture, 500).await).await;
    }
}

/// In each round one connection breaks at a random point of a creation, one of a deletion.
async fn break_connections(fixture: &ZooKeeperFixture, n_rounds: usize) {
    let seed = fastrand::u64(..);
    note(&format!("seed {seed}"));
    let mut rng = fastrand::Rng::with_seed(seed);
    let (proxy, zookeeper) = behind_proxy(fixture, TTL).await;
    let mut operator = fixture.operator().await;
    let foreign = "/services/s/foreign";
    operator.create(foreign, br#"{"address":"h","port":1}"#, PERSISTENT).await;
    let (_, before) = operator.get(foreign).await.expect("a node");
    let mut breaks = async || {
        sleep(Duration::from_micros(rng.u64(0..4000))).await;
        proxy.set(Fault::Reset).await;
        proxy.set(Fault::None).await;
    };
    for round in 0..n_rounds {
        let registration = Registration::new("s", instance("a", 1)).retry_in_background();
        let handle = zookeeper.register(registration).await.expect("in the background");
        breaks().await;
        let names = operator.children("/services/s").await;
        assert!(names.len() <= 2, "round {round}: {names:?}");
        let (deregistered, ()) = join!(timeout(BOUND, handle.deregister()), breaks());
        deregistered.expect("in time").expect("it deregisters");
    }
    holds("no node is left", BOUND, async || operator.children("/services/s").await == ["foreign"])
        .await;
    assert_eq!(operator.get(foreign).await.expect("untouched").1, before);
    note(&format!("{} connections for {n_rounds} registrations", proxy.n_accepted()));
}

/// Its session ends meanwhile, and it learns that later.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn process_suspended_beyond_its_session_has_one_node_afterwards() {
    on_every_zookeeper(async |fixture| {
        let logs = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(env::current_exe().expect("a path"));
        command.args(["--exact", "--include-ignored", "sessions::suspended_process"]);
        command.env(SERVER, fixture.server.address().to_string());
        let process = Process::start(&mut command, &logs.path().join("output"));
        let process = process.expect("it starts");
        let mut operator = fixture.operator().await;
        let mut owner = async |what: &str, is_there: bool| {
            let mut owner = None;
            holds(what, BOUND, async || {
                owner = operator.get("/services/s/a").await.map(|(_, stat)| stat.owner);
                owner.is_some() == is_there
            })
            .await;
            owner
        };
        let before = owner("registered", true).await;
        process.suspend().expect("it runs");
        owner("its session has ended", false).await;
        process.resume().expect("it runs");
        let after = owner("registered again", true).await;
        assert_ne!(after, before);
        sleep(TTL * 2).await;
        assert_eq!(owner("still registered", true).await, after);
        assert_eq!(fixture.operator().await.children("/services/s").await, ["a"]);
    })
    .await;
}

/// The process of the test above.
#[tokio::test]
#[ignore = "a part of another test"]
async fn suspended_process() {
    let Ok(server) = env::var(SERVER) else { return };
    let config = ZooKeeperConfig::new([server]).session_timeout(TTL);
    let zookeeper = ZooKeeper::new(config).expect("good settings");
    let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
    let _handle = handle.expect("it registers");
    std::future::pending::<()>().await;
}

/// The ensemble is replaced by an empty one.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn wiped_data_is_registered_again() {
    on_every_zookeeper(async |fixture| {
        let zookeeper = fixture.client();
        let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
        let _handle = handle.expect("it registers");
        let mut subscription = zookeeper.instancer("s").subscribe();
        shows_that(&mut subscription, "a", BOUND, fresh_with(1)).await;
        fixture.server.restart_empty().await.expect("it starts again");
        let mut operator = fixture.operator().await;
        holds("it is registered again", BOUND, async || {
            operator.children("/services/s").await == ["a"]
        })
        .await;
        shows_that(&mut subscription, "a", BOUND, fresh_with(1)).await;
    })
    .await;
}

/// A connection has nothing of the one before it.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn credentials_are_sent_with_every_connection() {
    on_every_zookeeper(async |fixture| {
        let proxy = Proxy::start(fixture.server.address()).await.expect("a proxy");
        let config = ZooKeeperConfig::new([proxy.address().to_string()]).session_timeout(TTL * 5);
        let config = config.user("app", "s3cr3t").acl(Acl::Creator);
        let zookeeper = ZooKeeper::new(config).expect("good settings");
        let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
        let handle = handle.expect("it registers");
        proxy.set(Fault::Cut).await;
        proxy.set(Fault::None).await;
        handle.update(|it| it.with_weight(3)).await.expect("the owner may");
        assert_eq!((handle.stats().lost, proxy.n_accepted() > 1), (0, true));
    })
    .await;
}

/// The registration is withdrawn while the servers are away, and the session goes on.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn node_left_behind_is_removed_with_the_next_connection() {
    on_every_zookeeper(async |fixture| {
        let (proxy, zookeeper) = behind_proxy(fixture, LONG).await;
        let stays = zookeeper.register(Registration::new("s", instance("stays", 1))).await;
        let _stays = stays.expect("it registers");
        let leaves = Registration::new("s", instance("leaves", 2));
        let leaves = leaves.deregister_timeout(Duration::from_millis(100));
        let leaves = zookeeper.register(leaves).await.expect("it registers");
        proxy.set(Fault::Cut).await;
        leaves.deregister().await.expect_err("there is no connection");
        proxy.set(Fault::None).await;
        let mut operator = fixture.operator().await;
        holds("it is removed", BOUND, async || operator.children("/services/s").await == ["stays"])
            .await;
    })
    .await;
}

/// The last user closes the session: its nodes end without a timeout.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn last_user_closes_the_session() {
    on_every_zookeeper(async |fixture| {
        let (proxy, zookeeper) = behind_proxy(fixture, LONG).await;
        let instancer = zookeeper.instancer("s");
        let mut subscription = instancer.subscribe();
        subscription.ready(BOUND).await.expect("it answers");
        assert_eq!((proxy.n_open(), proxy.n_accepted()), (1, 1));
        instancer.close().await;
        drop((instancer, subscription, zookeeper));
        holds("no connection is left", BOUND, async || proxy.n_open() == 0).await;
        let dump = fixture.server.command("dump").await.expect("it runs");
        let is_session = |line: &str| line.trim_start().starts_with("0x");
        assert!(!dump.lines().any(is_session), "a session is left: {dump}");
    })
    .await;
}

/// A client whose only server is a proxy.
async fn behind_proxy(fixture: &ZooKeeperFixture, session: Duration) -> (Proxy, ZooKeeper) {
    let proxy = Proxy::start(fixture.server.address()).await.expect("a proxy");
    let config = ZooKeeperConfig::new([proxy.address().to_string()]).session_timeout(session);
    (proxy, ZooKeeper::new(config).expect("good settings"))
}

const PERSISTENT: crate::support::operator::CreateMode =
    crate::support::operator::CreateMode::Persistent;
const BOUND: Duration = Duration::from_secs(20);
/// From a new session to its node, but for what the machine itself is late.
const SOON: Duration = Duration::from_secs(1);
/// A session that ends in no test by itself, however busy the machine is.
const LONG: Duration = Duration::from_secs(30);
/// The variable with the address of the server.
const SERVER: &str = "SUSPENDED_PROCESS_SERVER";
