//! Clients whose server is away, or behind a proxy that cuts their connections.

use tower_sd_etcd::{Etcd, EtcdConfig};
use tower_sd_testkit::absence;

use crate::support::on_every_etcd_in_turn;

mod slow {
    use super::*;

    #[tokio::test]
    #[ignore = "slow: two minutes"]
    async fn servers_that_start_without_etcd_are_patient() {
        on_every_etcd_in_turn(async |etcd| {
            absence::servers_without_a_registry_are_patient(etcd.server.address(), |address| {
                Etcd::new(EtcdConfig::new([address.to_string()])).expect("good settings").into()
            })
            .await;
        })
        .await;
    }

    #[tokio::test]
    #[ignore = "slow: five minutes"]
    async fn proxy_that_cuts_every_50_s_blinds_rarely() {
        on_every_etcd_in_turn(async |etcd| {
            absence::cut_connections_blind_rarely(etcd.server.address(), |address| {
                Etcd::new(EtcdConfig::new([address.to_string()])).expect("good settings").into()
            })
            .await;
        })
        .await;
    }
}
