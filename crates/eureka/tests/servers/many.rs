//! Many applications in one process.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep};
use tower_sd_core::{Instancer, Registration};
use tower_sd_eureka::{Eureka, EurekaConfig, Query};
use tower_sd_testkit::{
    proxy::Proxy,
    real,
    servers::required,
    usage::{cpu_ms, resident_kib},
    wait::{fresh_with, shows_that},
};

use crate::support::{BOUND, LONG_LEASE, PORT, instance, operate, post_with};

mod slow {
    use super::*;

    #[tokio::test]
    #[ignore = "slow: a minute"]
    async fn thousand_applications_share_one_loop() {
        let config = real::EurekaConfig::quick(required("eureka"));
        let server = real::Eureka::start(config).await.expect("a server");
        stream::iter((0..1000).flat_map(|n| (0..10).map(move |m| (n, m))))
            .for_each_concurrent(16, |(n, m)| {
                let server = &server;
                async move {
                    let (app, id) = (format!("MANY-{n}"), format!("{n}-{m}"));
                    let port = PORT.replace('9', &(n + m + 1).to_string());
                    post_with(server, &app, &id, "UP", &port, LONG_LEASE).await;
                }
            })
            .await;
        let proxy = Proxy::start(server.address()).await.expect("a proxy");
        let config = EurekaConfig::new(format!("http://{}/eureka", proxy.address()));
        let query = Query::new("").poll_interval(POLL);
        let config = config.query(query).timeout(Duration::from_secs(20));
        let eureka = Eureka::new(config).expect("a URL");
        let (before, start) = (resident_kib().expect("Linux"), Instant::now());
        let apps = (0..1000).map(|n| Query::new(format!("many-{n}")).poll_interval(POLL));
        let mut followed: Vec<_> = apps.map(|query| eureka.instancer(query).subscribe()).collect();
        for subscription in &mut followed {
            shows_that(subscription, "ten", BOUND, fresh_with(10)).await;
        }
        let (took, kib) = (start.elapsed(), resident_kib().expect("Linux").saturating_sub(before));
        let n_first = proxy.n_gets();
        let busy = cpu_ms().expect("Linux");
        sleep(POLL * 10).await;
        let (busy, n_gets) = (cpu_ms().expect("Linux") - busy, proxy.n_gets() - n_first);
        println!(
            "1 000 applications of 10 after {took:?}: {n_first} reads, {} connections, {kib} KiB; \
             then {n_gets} reads in {:?}, {busy} ms of CPU",
            proxy.n_open(),
            POLL * 10
        );
        // One loop: neither a read for each application, nor a full read beside that of changes.
        assert!(n_first <= 8, "{n_first} reads");
        assert!((1..=12).contains(&n_gets), "{n_gets} reads");
        assert!(proxy.n_open() <= 4, "{} connections", proxy.n_open());
        assert!(kib < 128 << 10, "{kib} KiB");
        // Changes are seen by each in its own application alone.
        let late = Registration::new("many-999", instance("late", 1)).fail_fast(BOUND);
        let _late = eureka.register(late).await.expect("registered");
        operate(server.address(), "DELETE", "many-7", "7-3", "").await;
        operate(server.address(), "PUT", "many-8", "8-3", "/status?value=OUT_OF_SERVICE").await;
        for (n, wanted) in [(999, 11), (7, 9), (8, 9), (9, 10)] {
            shows_that(&mut followed[n], "the change", BOUND, fresh_with(wanted)).await;
        }
        let n_errors: u64 = followed.iter().map(|it| it.stats().errors).sum();
        assert_eq!(n_errors, 0);
    }
}

/// The default is 30 s.
const POLL: Duration = Duration::from_secs(2);
