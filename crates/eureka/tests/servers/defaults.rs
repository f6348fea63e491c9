//! A server and a client with the defaults of both.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_sd_core::{Instancer, Registration};
use tower_sd_eureka::{Eureka, EurekaConfig};
use tower_sd_testkit::{real, servers::required, wait::shows, wire::request};

use crate::support::{entry, instance};

mod slow {
    use super::*;

    /// The server's answers to followers are 30 s old, and followers read every 30 s.
    #[tokio::test]
    #[ignore = "slow: two minutes"]
    async fn changes_are_seen_within_a_minute() {
        let config = real::EurekaConfig::new(required("eureka"));
        let server = real::Eureka::start(config).await.expect("a server");
        let config = EurekaConfig::new(server.url()).timeout(Duration::from_secs(10));
        let eureka = Eureka::new(config).expect("a URL");
        let mut subscription = eureka.instancer("defaults").subscribe();
        subscription.ready(BOUND).await.expect("it answers");
        let read = async || {
            let read = request(server.address(), "GET", "/eureka/apps/DEFAULTS", "").await;
            read.expect("a well server").status
        };
        assert_eq!(read().await, 404);
        let start = Instant::now();
        let register = async |id, port| {
            let registration = Registration::new("defaults", instance(id, port)).fail_fast(BOUND);
            eureka.register(registration).await.expect("registered")
        };
        let (a, _b) = (register("a", 1).await, register("b", 2).await);
        // The entry is there, and the cache does not have it yet.
        assert!(entry(&server, "defaults", "a").await.contains("UP"));
        assert_eq!(read().await, 404);
        shows(&mut subscription, &["a", "b"], BOUND).await;
        println!("registrations were seen after {:?}", start.elapsed());
        let start = Instant::now();
        a.deregister().await.expect("deregistered");
        shows(&mut subscription, &["b"], BOUND).await;
        println!("a deregistration was seen after {:?}", start.elapsed());
        // Nothing was lost meanwhile, and nothing refused.
        sleep(Duration::from_secs(1)).await;
        let stats = subscription.stats();
        assert_eq!((stats.errors, stats.malformed), (0, 0), "{stats:?}");
    }
}

/// A minute, and the jitter of the reads.
const BOUND: Duration = Duration::from_secs(66);
