//! Clients whose servers are away.

mod slow {
    use tower_sd_testkit::absence;
    use tower_sd_zookeeper::{ZooKeeper, ZooKeeperConfig};

    use crate::support::{ZooKeeperFixture, newest};

    #[tokio::test]
    #[ignore = "slow: two minutes"]
    async fn servers_that_start_without_zookeeper_are_patient() {
        let fixture = ZooKeeperFixture::start(newest()).await.expect("it starts");
        absence::servers_without_a_registry_are_patient(fixture.server.address(), |address| {
            let config = ZooKeeperConfig::new([address.to_string()]);
            ZooKeeper::new(config).expect("good settings").into()
        })
        .await;
    }
}
