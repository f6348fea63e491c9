//! Clients whose server is away, or behind a proxy that cuts their connections.

use std::{net::SocketAddr, time::Duration};

use tower_sd_core::Registry;
use tower_sd_eureka::{Eureka, EurekaConfig, Query};
use tower_sd_testkit::{absence, real, servers::required};

async fn server() -> real::Eureka {
    real::Eureka::start(real::EurekaConfig::quick(required("eureka"))).await.expect("a server")
}

fn connect(address: SocketAddr) -> Registry {
    // Its followers see a registration within the bound of the test.
    let query = Query::new("").poll_interval(Duration::from_secs(2));
    let config = EurekaConfig::new(format!("http://{address}/eureka")).query(query);
    Eureka::new(config).expect("a URL").into()
}

mod slow {
    use super::*;

    #[tokio::test]
    #[ignore = "slow: two minutes"]
    async fn servers_that_start_without_eureka_are_patient() {
        absence::servers_without_a_registry_are_patient(server().await.address(), connect).await;
    }

    #[tokio::test]
    #[ignore = "slow: five minutes"]
    async fn proxy_that_cuts_every_50_s_blinds_rarely() {
        absence::cut_connections_blind_rarely(server().await.address(), connect).await;
    }
}
