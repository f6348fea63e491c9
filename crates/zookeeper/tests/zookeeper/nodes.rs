//! Nodes of ours and of others, and who owns them.

use std::{fs, time::Duration};

use tempfile::NamedTempFile;
use tokio::time::{sleep, timeout};
use tower_sd_core::{
    ErrorKind, Instancer, ReadMode, ReadRequest, Registration, RegistrationState, Snapshot, Source,
};
use tower_sd_testkit::{
    real,
    wait::{fresh_with, shows_that},
};
use tower_sd_zookeeper::{Curator, GoKit, ServerSet, ZooKeeper};

use crate::support::{
    TTL, holds, instance, newest, on_every_zookeeper,
    operator::{
        ALL,
        CreateMode::{Ephemeral, Persistent},
        Operator, UNREADABLE,
    },
    patient,
};

/// The predecessor's session is not over yet.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn node_of_a_dead_predecessor_is_replaced_and_stays() {
    on_every_zookeeper(async |fixture| {
        let mut predecessor = fixture.operator().await;
        predecessor.create("/services/s/a", br#"{"address":"old","port":1}"#, Ephemeral).await;
        let zookeeper = fixture.client();
        let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
        let handle = handle.expect("it registers");
        drop(predecessor);
        let mut subscription = zookeeper.instancer("s").subscribe();
        let is_ours =
            |it: &Snapshot| it.instances().first().is_some_and(|it| it.host() == "127.0.0.1");
        shows_that(&mut subscription, "ours", BOUND, is_ours).await;
        handle.deregister().await.expect("it deregisters");
        shows_that(&mut subscription, "none", BOUND, fresh_with(0)).await;
        let mut operator = fixture.operator().await;
        assert!(operator.get("/services/s").await.is_some(), "the parents stay");
    })
    .await;
}

/// A watch of the children does not fire on data.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn data_of_a_child_is_followed() {
    on_every_zookeeper(async |fixture| {
        let zookeeper = fixture.client();
        let mut subscription = zookeeper.instancer("s").subscribe();
        shows_that(&mut subscription, "none", BOUND, fresh_with(0)).await;
        let mut operator = fixture.operator().await;
        for port in 1..20_u16 {
            let data = format!(r#"{{"address":"h","port":{port}}}"#);
            if port == 1 {
                operator.create("/services/s/a", data.as_bytes(), Persistent).await;
            } else {
                operator.set("/services/s/a", data.as_bytes()).await;
            }
            shows_that(&mut subscription, "the port", BOUND, |it| {
                it.instances().first().is_some_and(|it| it.port() == port)
            })
            .await;
        }
        operator.delete("/services/s/a").await;
        shows_that(&mut subscription, "none", BOUND, fresh_with(0)).await;
        operator.delete("/services/s").await;
        operator.create("/services/s/b", br#"{"address":"h","port":1}"#, Persistent).await;
        shows_that(&mut subscription, "b", BOUND, fresh_with(1)).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn node_that_is_no_instance_is_left_out_and_counted() {
    on_every_zookeeper(async |fixture| {
        let mut operator = fixture.operator().await;
        for (name, data) in [
            ("text", "no JSON"),
            ("type", r#"{"address":"h","port":1,"serviceType":"MAGIC"}"#),
            ("null", r#"{"address":"h","port":null}"#),
            ("zero", r#"{"address":"h","port":0}"#),
            ("good", r#"{"address":"h","port":1,"payload":{"@class":"java.lang.Runtime"}}"#),
        ] {
            operator.create(&format!("/services/s/{name}"), data.as_bytes(), Persistent).await;
        }
        let mut subscription = fixture.client().instancer("s").subscribe();
        let snapshot = shows_that(&mut subscription, "good", BOUND, fresh_with(1)).await;
        assert_eq!(snapshot.instances()[0].id().as_str(), "good");
        assert_eq!(subscription.stats().malformed, 4, "{:?}", subscription.stats());
    })
    .await;
}

/// A service is moved from go-kit's layout to Curator's.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn layouts_are_read_beside_each_other() {
    on_every_zookeeper(async |fixture| {
        let mut operator = fixture.operator().await;
        let protected = "/services/s/_c_0123456789abcdef0123456789abcdef-0000000001";
        operator.create(protected, b"10.0.2.10:80", Ephemeral).await;
        for (layout, id, port) in [("go-kit", "b", 1), ("curator", "c", 2), ("twitter", "d", 3)] {
            let config = fixture.config();
            let config = match layout {
                "go-kit" => config.layout(GoKit::default()),
                "curator" => config.layout(Curator::default()),
                _ => config.layout(ServerSet::default()),
            };
            let zookeeper = ZooKeeper::new(config).expect("good settings");
            let handle = zookeeper.register(Registration::new("s", instance(id, port))).await;
            std::mem::forget(handle.expect("it registers"));
        }
        let (data, _) = operator.get("/services/s/b").await.expect("a node");
        assert_eq!(data, b"127.0.0.1:1");
        let (data, _) = operator.get("/services/s/member_d").await.expect("a node");
        let data = String::from_utf8(data).expect("JSON");
        assert!(data.contains(r#""serviceEndpoint":{"host":"127.0.0.1","port":3}"#), "{data}");
        let config = fixture.config().also_read(GoKit::default()).also_read(ServerSet::default());
        let zookeeper = ZooKeeper::new(config).expect("good settings");
        let mut subscription = zookeeper.instancer("s").subscribe();
        let snapshot = shows_that(&mut subscription, "four", BOUND, fresh_with(4)).await;
        let ids: Vec<_> = snapshot.instances().iter().map(|it| it.id().as_str()).collect();
        assert_eq!(ids, ["10.0.2.10:80", "b", "c", "d"]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn chroot_is_made_and_used() {
    on_every_zookeeper(async |fixture| {
        let config = fixture.config().chroot("/app/one").path("/sd");
        let zookeeper = ZooKeeper::new(config).expect("good settings");
        let mut subscription = zookeeper.instancer("s").subscribe();
        shows_that(&mut subscription, "none", BOUND, fresh_with(0)).await;
        let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
        let _handle = handle.expect("it registers");
        shows_that(&mut subscription, "a", BOUND, fresh_with(1)).await;
        let mut operator = fixture.operator().await;
        assert_eq!(operator.children("/app/one/sd/s").await, ["a"]);
        zookeeper.check().await.expect("it answers");
    })
    .await;
}

/// A Java process registers the same id statically, or an operator does.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn persistent_node_in_the_place_of_ours_is_left_alone() {
    on_every_zookeeper(async |fixture| {
        let zookeeper = fixture.client();
        let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
        let handle = handle.expect("it registers");
        let mut operator = fixture.operator().await;
        operator.delete("/services/s/a").await;
        let data = br#"{"address":"h","port":9}"#;
        operator.create("/services/s/a", data, Persistent).await;
        holds("it is taken over", BOUND, async || {
            matches!(handle.state(), RegistrationState::TakenOver { .. })
        })
        .await;
        sleep(TTL * 2).await;
        let (found, stat) = operator.get("/services/s/a").await.expect("a node");
        assert_eq!((found.as_slice(), stat.owner), (&data[..], 0));
        operator.delete("/services/s/a").await;
        holds("it is registered again", BOUND, async || {
            matches!(handle.state(), RegistrationState::Registered)
        })
        .await;
    })
    .await;
}

/// Data with an owner of its own, and a wrong password.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn other_user_is_denied_and_not_empty() {
    on_every_zookeeper(async |fixture| {
        let config = |user| {
            let config = fixture.config().user("app", user);
            config.acl(tower_sd_zookeeper::Acl::Creator)
        };
        let owner = ZooKeeper::new(config("right")).expect("good settings");
        let handle = owner.register(Registration::new("s", instance("a", 1))).await;
        let _handle = handle.expect("it registers");
        let other = ZooKeeper::new(config("wrong")).expect("good settings");
        let error = other.register(Registration::new("s", instance("b", 1))).await;
        let error = error.expect_err("no access");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(!format!("{error:?} {other:?}").contains("wrong"), "a password is shown");
        let mut subscription = other.instancer("s").subscribe();
        shows_that(&mut subscription, "others read", BOUND, fresh_with(1)).await;
        // What is above the services belongs to all, and the parent of a service to its owner.
        let handle = other.register(Registration::new("t", instance("b", 1))).await;
        handle.expect("a service of its own").deregister().await.expect("deregistered");
        let below = ZooKeeper::new(config("wrong").path("/services/s")).expect("good settings");
        let error = below.register(Registration::new("u", instance("b", 1))).await;
        let error = error.expect_err("no access");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    })
    .await;
}

/// A connection has the user that it began with.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn rotated_password_is_used_after_a_denial() {
    on_every_zookeeper(async |fixture| {
        let file = NamedTempFile::new().expect("a file");
        let config = fixture.config().acl(tower_sd_zookeeper::Acl::Creator);
        let owner = ZooKeeper::new(config.clone().user("app", "right")).expect("good settings");
        let handle = owner.register(Registration::new("s", instance("a", 1))).await;
        let _handle = handle.expect("it registers");
        fs::write(file.path(), "wrong").expect("our file");
        let config = config.user_from_file("app", file.path());
        let other = ZooKeeper::new(config).expect("good settings");
        let register = || other.register(Registration::new("s", instance("b", 1)));
        assert_eq!(register().await.expect_err("no access").kind(), ErrorKind::Denied);
        fs::write(file.path(), "right").expect("our file");
        let rotated = async {
            while register().await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(BOUND, rotated).await.expect("the connection is another one");
    })
    .await;
}

/// A service that may not be read is not one without instances.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn denied_service_is_stale_and_not_empty() {
    on_every_zookeeper(async |fixture| {
        let mut operator = fixture.operator().await;
        operator.create("/services/s/a", br#"{"address":"h","port":1}"#, Persistent).await;
        let mut early = patient(fixture.server.address()).instancer("s").subscribe();
        shows_that(&mut early, "a", BOUND, fresh_with(1)).await;
        operator.permit("/services/s", UNREADABLE).await;
        // Newer servers report no change to a client that may not read: it is found by a read.
        operator.create_in("/services/s/b", br#"{"address":"h","port":2}"#, Persistent).await;
        let is_denied = |it: &Snapshot| {
            it.freshness().error().is_some_and(|error| error.kind() == ErrorKind::Denied)
        };
        early.refresh();
        let kept = shows_that(&mut early, "denied", BOUND, is_denied).await;
        assert_eq!(kept.instances().len(), 1, "{kept:?}");
        let mut late = patient(fixture.server.address()).instancer("s").subscribe();
        let unknown = shows_that(&mut late, "denied", BOUND, is_denied).await;
        assert!(!unknown.freshness().is_synced(), "{unknown:?}");
    })
    .await;
}

/// Between the list and the read of each.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn children_that_leave_while_they_are_read_are_no_error() {
    on_every_zookeeper(async |fixture| {
        let data = |port| format!(r#"{{"address":"h","port":{port}}}"#);
        let mut operator = fixture.operator().await;
        operator.create("/services/s/z", data(999).as_bytes(), Persistent).await;
        for _round in 0..10 {
            for n in 0..300 {
                let path = format!("/services/s/{n}");
                operator.create_in(&path, data(n + 1).as_bytes(), Persistent).await;
            }
            let zookeeper = patient(fixture.server.address());
            let mut subscription = zookeeper.instancer("s").subscribe();
            let leave = async {
                for n in (0..300).rev() {
                    operator.delete(&format!("/services/s/{n}")).await;
                }
            };
            tokio::join!(
                leave,
                shows_that(&mut subscription, "z", BOUND, |it| {
                    it.instances().iter().any(|it| it.id().as_str() == "z")
                })
            );
            shows_that(&mut subscription, "z alone", BOUND, fresh_with(1)).await;
            let stats = subscription.stats();
            assert_eq!((stats.errors, stats.malformed), (0, 0), "{stats:?}");
        }
    })
    .await;
}

/// The server removes the parents, which are containers, some time after their last child.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn containers_that_the_server_has_removed_are_made_again() {
    let config = real::ZooKeeperConfig::new(newest());
    let config = config.property("znode.container.checkIntervalMs=500");
    let server = real::ZooKeeper::start(config).await.expect("it starts");
    let zookeeper = patient(server.address());
    let register = async || {
        let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
        handle.expect("it registers")
    };
    register().await.deregister().await.expect("deregistered");
    let mut operator = Operator::connect(server.address()).await;
    holds("the server removes them", BOUND, async || operator.get("/services").await.is_none())
        .await;
    let again = register().await;
    assert_eq!(operator.children("/services/s").await, ["a"]);
    // Under a live registration too.
    for path in ["/services/s/a", "/services/s", "/services"] {
        operator.delete(path).await;
    }
    again.update(|it| it.with_weight(3)).await.expect("updated");
    assert_eq!(operator.children("/services/s").await, ["a"]);
}

/// No watch reports that access is given.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn child_is_read_with_the_next_verification_of_access() {
    on_every_zookeeper(async |fixture| {
        let mut operator = fixture.operator().await;
        operator.create("/app/a", b"1", Persistent).await;
        operator.create("/app/b", b"2", Persistent).await;
        operator.permit("/app/b", UNREADABLE).await;
        let mut source = fixture.client().key_value("app/");
        let mut read = async |mode| {
            let read = source.read(ReadRequest::new(mode)).await.expect("it answers");
            read.entries().map(|entries| (entries.len(), entries.iter().flatten().count()))
        };
        assert_eq!(read(ReadMode::Full).await, Some((2, 1)));
        operator.permit("/app/b", ALL).await;
        assert_eq!(read(ReadMode::Verify).await, Some((2, 2)));
        assert_eq!(read(ReadMode::Verify).await, None, "it is unchanged");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn keys_are_followed() {
    on_every_zookeeper(async |fixture| {
        let zookeeper = fixture.client();
        let mut one = zookeeper.key_value("app/config");
        let mut all = zookeeper.key_value("app/");
        let full = ReadRequest::new(ReadMode::Full);
        let changed = ReadRequest::new(ReadMode::Changed);
        for source in [&mut one, &mut all] {
            let read = source.read(full).await.expect("it answers");
            assert!(read.entries().expect("a set").is_empty());
        }
        let mut operator = fixture.operator().await;
        operator.create("/app/config", b"1", Persistent).await;
        for source in [&mut one, &mut all] {
            holds("the value is seen", BOUND, async || {
                let read = source.read(changed).await.expect("it answers");
                let Some([Ok(entry)]) = read.entries() else { return false };
                assert_eq!((entry.key(), entry.value()), ("app/config", &b"1"[..]));
                entry.revision() > 0
            })
            .await;
        }
        operator.set("/app/config", b"2").await;
        for source in [&mut one, &mut all] {
            holds("the next value is seen", BOUND, async || {
                let read = source.read(changed).await.expect("it answers");
                matches!(read.entries(), Some([Ok(entry)]) if entry.value() == b"2")
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn keys_of_the_root_are_followed() {
    on_every_zookeeper(async |fixture| {
        let zookeeper = fixture.client();
        let mut root = zookeeper.key_value("");
        let read = root.read(ReadRequest::new(ReadMode::Full)).await.expect("it answers");
        assert!(!read.entries().expect("a set").is_empty(), "those of ZooKeeper itself");
        let mut operator = fixture.operator().await;
        operator.create("/top", b"1", Persistent).await;
        let is_seen = holds("the key is seen", BOUND, async || {
            let read = root.read(ReadRequest::new(ReadMode::Changed)).await.expect("it answers");
            let keys = read.entries().into_iter().flatten().flatten();
            keys.into_iter().any(|entry| entry.key() == "top")
        });
        timeout(BOUND, is_seen).await.expect("an event of the root");
    })
    .await;
}

const BOUND: Duration = Duration::from_secs(20);
