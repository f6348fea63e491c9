//! The shared suite on BIND, for the reading half.
//!
//! Registering is a dynamic update of the fixture.

#[path = "support/zone.rs"]
mod zone;

use std::{process::ExitCode, sync::Arc, time::Duration};

use tower_sd_core::{InstanceId, TaskGroup, async_trait};
use tower_sd_testkit::{Fixture, TestClient, TestInstancer, real, run_on};

use self::zone::ZoneRegistrar;

struct Named(real::Bind);

impl Named {
    fn client_with(&self, ttl: Duration) -> TestClient {
        let server = self.0.address();
        let dns = zone::client(server);
        TestClient::new(
            move || Arc::new(ZoneRegistrar { server, ttl, tasks: TaskGroup::new() }),
            move |service| {
                let (outer, inner) = zone::instancer(&dns, service);
                let closed = outer.clone();
                TestInstancer::new(outer, async move {
                    closed.close().await;
                    inner.close().await;
                })
            },
        )
    }
}

#[async_trait]
impl Fixture for Named {
    fn client(&self) -> TestClient {
        self.client_with(self.ttl())
    }

    fn client_of_many(&self) -> TestClient {
        self.client_with(Duration::from_secs(60))
    }

    async fn interrupt(&self) {
        self.0.kill();
    }

    async fn freeze(&self) {
        self.0.suspend().expect("it runs");
    }

    async fn resume(&self) {
        if !self.0.is_running() {
            self.0.restart().await.expect("named starts again");
        }
        self.0.resume().expect("it runs");
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        let expired = zone::expire(self.0.address(), service, id.as_str()).await;
        expired.expect("a well server takes an update");
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(3)
    }

    fn evidence(&self) -> String {
        self.0.output()
    }

    fn exceptions() -> &'static [(&'static str, &'static str)] {
        const LABEL: &str = "a label of DNS has at most 63 bytes";
        const HOST_NAME: &str = "names of DNS that people look up have no spaces or slashes";
        const NO_OWNER: &str = "a record has no room for the name of its owner";
        const NO_ROOM: &str = "an SRV record has no room for it";
        &[
            ("service_name_may_be_of_120_characters", LABEL),
            ("service_name_may_have_spaces_and_slashes", HOST_NAME),
            ("service_name_like_a_path_works_or_is_refused", HOST_NAME),
            ("instance_id_may_be_of_120_characters", LABEL),
            ("instance_id_may_have_spaces_and_slashes", HOST_NAME),
            ("host_name_survives", "a target is resolved: the host is its address"),
            ("weight_of_zero_survives", "0 means hardly ever in an SRV record, not never"),
            ("remains_that_drain_hide_no_live_instance", NO_ROOM),
            ("scheme_survives", NO_ROOM),
            ("zone_survives", NO_ROOM),
            ("tags_survive", NO_ROOM),
            ("metadata_survives", NO_ROOM),
            ("start_time_survives", NO_ROOM),
            ("predecessor_that_leaves_last_takes_nothing_away", NO_OWNER),
            ("predecessor_that_updates_takes_nothing_away", NO_OWNER),
            ("predecessor_observes_its_successor", NO_OWNER),
            ("predecessor_is_back_when_its_successor_is_gone", NO_OWNER),
            ("refused_update_keeps_the_registration", "metadata is not in the records"),
            (
                "instance_that_the_recovery_lacks_is_kept",
                "a server that is killed takes no update meanwhile",
            ),
            (
                "instance_that_left_during_the_outage_is_gone_after_it",
                "a record has no lease: it stays when no process removes it",
            ),
        ]
    }
}

fn main() -> ExitCode {
    run_on("named", async |binary| Ok(Named(real::Bind::start(&binary).await?)))
}
