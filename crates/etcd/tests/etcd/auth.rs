//! Users, passwords and tokens that expire, on a real server.

use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Permission};
use tokio::time::{Instant, sleep};
use tower_sd_core::{ErrorKind, Freshness, Instancer, Registration};
use tower_sd_etcd::Etcd;
use tower_sd_testkit::wait::{shows, shows_that};

use crate::support::{EtcdFixture, holds, instance, on_every_etcd, on_every_etcd_with};

const SOON: Duration = Duration::from_secs(5);
const SHORT_LIVED: &[&str] = &["--auth-token-ttl", "1"];
/// The server drops old tokens once a second; a registration reads its key every 2 s, which would
/// keep a token of 2 s alive.
const EXPIRED: Duration = Duration::from_secs(4);

/// `svc` may do everything below the prefix, `nobody` nothing.
async fn add_users(etcd: &EtcdFixture) {
    let mut operator = etcd.operator().await;
    for (user, password) in [("root", "root"), ("svc", "hunter2"), ("guest", "nothing")] {
        operator.user_add(user, password, None).await.expect("a user");
    }
    for role in ["root", "svc"] {
        operator.role_add(role).await.expect("a role");
        operator.user_grant_role(role, role).await.expect("granted");
    }
    let all = Permission::read_write("tower-sd/").with_prefix();
    operator.role_grant_permission("svc", all).await.expect("granted");
    operator.auth_enable().await.expect("enabled");
}

/// A password takes the server a tenth of a second of computing, more where much else is computed.
fn client(etcd: &EtcdFixture, user: &str, password: &str) -> Etcd {
    let config = etcd.config().user(user, password).connect_timeout(SOON);
    Etcd::new(config).expect("good settings")
}

async fn root(etcd: &EtcdFixture) -> Client {
    let options = ConnectOptions::new().with_user("root", "root");
    Client::connect([etcd.server.url()], Some(options)).await.expect("root")
}

fn registration(service: &str, id: &str, port: u16) -> Registration {
    // A password check may be part of it.
    Registration::new(service, instance(id, port)).deregister_timeout(4 * SOON)
}

/// Tokens expire while nothing but keep-alives and a watch go on, and later while a watch is added
/// to a stream that has an old token.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn expired_token_is_renewed_on_demand() {
    on_every_etcd_with(SHORT_LIVED, async |etcd| {
        add_users(etcd).await;
        let client = client(etcd, "svc", "hunter2");
        let registrar = client.clone();
        let first = registrar.register(registration("a", "1", 1)).await.expect("registers");
        let instancer = client.instancer("a");
        let mut a = instancer.subscribe();
        shows(&mut a, &["1"], SOON).await;
        sleep(EXPIRED).await;
        let other = client.instancer("b");
        let mut b = other.subscribe();
        b.ready(SOON).await.expect("reads with a new token");
        let _second = registrar.register(registration("a", "2", 2)).await.expect("registers");
        let _third = registrar.register(registration("b", "3", 3)).await.expect("registers");
        shows(&mut a, &["1", "2"], SOON).await;
        shows(&mut b, &["3"], SOON).await;
        sleep(EXPIRED).await;
        first.deregister().await.expect("deregisters with a new token");
        shows(&mut a, &["2"], SOON).await;
        for stats in [a.stats(), b.stats()] {
            assert_eq!(stats.errors, 0, "{stats:?}");
        }
    })
    .await;
}

/// Clients get their credentials before `auth enable`.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn client_with_a_user_works_before_authentication_is_enabled() {
    on_every_etcd_with(SHORT_LIVED, async |etcd| {
        let client = client(etcd, "svc", "hunter2");
        client.check().await.expect("no token is needed");
        let first = client.register(registration("a", "1", 1)).await.expect("registers");
        let mut a = client.instancer("a").subscribe();
        shows(&mut a, &["1"], SOON).await;
        add_users(etcd).await;
        let _second = client.register(registration("a", "2", 2)).await.expect("registers");
        shows(&mut a, &["1", "2"], 4 * SOON).await;
        first.deregister().await.expect("deregisters");
        shows(&mut a, &["2"], SOON).await;
    })
    .await;
}

/// A restart drops all simple tokens.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn restarted_server_is_authenticated_to_again() {
    on_every_etcd_with(SHORT_LIVED, async |etcd| {
        add_users(etcd).await;
        let client = client(etcd, "svc", "hunter2");
        let registrar = client.clone();
        let handle = registrar.register(registration("a", "1", 1)).await.expect("registers");
        let instancer = client.instancer("a");
        let mut subscription = instancer.subscribe();
        shows(&mut subscription, &["1"], SOON).await;
        etcd.server.restart().await.expect("it starts again");
        // On a busy machine a password check takes longer than a call may.
        holds("updated with a new token", 4 * SOON, async || {
            handle.update(|instance| instance.with_weight(7)).await.is_ok()
        })
        .await;
        shows_that(&mut subscription, "a weight of 7, fresh", SOON, |it| {
            it.instances().first().is_some_and(|instance| instance.weight() == 7)
                && matches!(it.freshness(), Freshness::Fresh)
        })
        .await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn wrong_password_and_missing_permission_are_denied_once() {
    on_every_etcd_with(SHORT_LIVED, async |etcd| {
        add_users(etcd).await;
        for (user, password) in [("svc", "wr0ng-s3cret"), ("guest", "nothing")] {
            let client = client(etcd, user, password);
            let start = Instant::now();
            let registered = client.clone().register(registration("a", "1", 1)).await;
            let error = registered.expect_err("denied");
            assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Denied, false));
            // Repeated, it would fail after 5 s.
            assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
            assert!(!format!("{error:?} {error}").contains(password), "{error:?}");

            let error = client.check().await.expect_err("denied");
            assert_eq!(error.kind(), ErrorKind::Denied);
            let instancer = client.instancer("a");
            let mut subscription = instancer.subscribe();
            let denied = shows_that(&mut subscription, "why it is not ready", SOON, |it| {
                matches!(it.freshness(), Freshness::NeverSynced { error: Some(_) })
            });
            let Freshness::NeverSynced { error: Some(error) } = denied.await.freshness().clone()
            else {
                panic!("checked above")
            };
            assert_eq!(error.kind(), ErrorKind::Denied);
            sleep(Duration::from_secs(2)).await;
            assert_eq!(subscription.stats().errors, 1, "only a change by an operator helps");
        }
    })
    .await;
}

/// What is taken away by an operator is an error, not an empty set.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn revoked_permission_keeps_the_set() {
    on_every_etcd_with(SHORT_LIVED, async |etcd| {
        add_users(etcd).await;
        let client = client(etcd, "svc", "hunter2");
        let registrar = client.clone();
        let _handle = registrar.register(registration("a", "1", 1)).await.expect("registers");
        let instancer = client.instancer("a");
        let mut subscription = instancer.subscribe();
        shows(&mut subscription, &["1"], SOON).await;
        root(etcd).await.user_revoke_role("svc", "svc").await.expect("revoked");
        subscription.refresh();
        let stale = shows_that(&mut subscription, "stale and denied", SOON, |it| {
            matches!(it.freshness(), Freshness::Stale { error, .. } if error.kind() == ErrorKind::Denied)
        });
        assert_eq!(stale.await.instances().len(), 1);
    })
    .await;
}

/// The password is changed at the server, and then in the file.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn rotated_password_file_is_read_again() {
    on_every_etcd(async |etcd| {
        add_users(etcd).await;
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2\n").expect("our folder");
        let config = etcd.config().user_from_file("svc", &file).connect_timeout(SOON);
        let client = Etcd::new(config).expect("good settings");
        let registrar = client.clone();
        let _handle = registrar.register(registration("a", "1", 1)).await.expect("registers");
        root(etcd).await.user_change_password("svc", "hunter3").await.expect("changed");
        std::fs::write(&file, "hunter3\n").expect("our folder");
        root(etcd).await.delete("tower-sd/a/1", None).await.expect("deleted");
        // The watch of the key may have ended with the old token; then a read of it is due.
        holds("it is put again", 4 * SOON, async || {
            let answer = root(etcd).await.get("tower-sd/a/1", None).await;
            answer.is_ok_and(|answer| answer.count() == 1)
        })
        .await;
    })
    .await;
}
