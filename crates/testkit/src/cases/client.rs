//! One client: a value that its registrars and instancers share.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{runtime::Builder, task::spawn_blocking, time::sleep};
use tower_sd_core::{Instancer, Registrar, Registration, RegistrationHandle, Subscription};

use crate::{
    Fixture, TestClient, TestInstancer,
    scene::{instance, unique},
    wait::shows,
};

/// A client in a static is used by each test of a program, on a runtime of its own.
pub(super) fn client_survives_its_first_runtime(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let (client, service) = (fixture.client(), unique("service"));
        let user = Arc::new(User { client, service, bound: fixture.visible_bound() });
        let first = Arc::clone(&user);
        let used = spawn_blocking(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            let followers = runtime.block_on(async {
                let mut followers = first.follow().await;
                let a = first.register("a", 8001).await;
                first.all_see(&mut followers, &["a"]).await;
                a.deregister().await.expect("a well registry deregisters");
                followers
            });
            drop(runtime);
            followers
        });
        // The followers outlive their tasks.
        let _ended = used.await.expect("a client works on its first runtime");
        let mut followers = user.follow().await;
        let _b = user.register("b", 8002).await;
        user.all_see(&mut followers, &["b"]).await;
        let before: Vec<_> = followers.iter().map(|(_, it)| it.stats()).collect();
        sleep(SILENCE).await;
        for ((_, subscription), before) in followers.iter().zip(before) {
            let after = subscription.stats();
            assert_eq!((after.errors, after.resyncs), (before.errors, before.resyncs));
            assert!(subscription.snapshot().freshness().is_fresh());
        }
        let _c = user.register("c", 8003).await;
        user.all_see(&mut followers, &["b", "c"]).await;
    }
    .boxed()
}

struct User {
    client: TestClient,
    service: String,
    bound: Duration,
}

impl User {
    async fn follow(&self) -> Vec<(TestInstancer, Subscription)> {
        let mut followers = Vec::new();
        for _ in 0..FOLLOWERS {
            let instancer = self.client.instancer(&self.service);
            let subscription = instancer.subscribe();
            followers.push((instancer, subscription));
        }
        for (_, subscription) in &mut followers {
            subscription.ready(self.bound).await.expect("a well registry answers");
        }
        followers
    }

    async fn register(&self, id: &str, port: u16) -> RegistrationHandle {
        let registration = Registration::new(&self.service, instance(id, port));
        let registered = self.client.registrar().register(registration).await;
        registered.expect("a well registry accepts a registration")
    }

    async fn all_see(&self, followers: &mut [(TestInstancer, Subscription)], ids: &[&str]) {
        for (_, subscription) in followers {
            shows(subscription, ids, self.bound).await;
        }
    }
}

/// More than a client of Consul follows by queries of their own.
const FOLLOWERS: usize = 60;
/// For which a watch that is dead would be made again many times.
const SILENCE: Duration = Duration::from_secs(2);
