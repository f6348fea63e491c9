//! The suite's own test: every case notices a bug.
//!
//! None fails on a registry without one.

mod registry;
mod writer;

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    runtime::{Builder, Handle},
    sync::Notify,
    time::{pause, sleep, timeout},
};
use tower_sd_core::{
    AnnounceConfig, FollowConfig, Follower, InstanceId, Instancer, LossPolicy, Publisher,
    Registrar, Registration, RegistrationHandle, RegistryConfig, Result, Subscription, TaskGroup,
    announce, async_trait, follow,
};
use tower_sd_testkit::{CASES, Case, Clock, Fixture, TestClient, TestInstancer};

use crate::{
    registry::{Bug, Reader, Store, TTL},
    writer::Writer,
};

#[test]
fn registry_without_a_bug_passes_every_case() {
    for (name, case) in CASES {
        assert_eq!(outcome(Bug::None, *case), Outcome::Passed, "{name}");
    }
}

#[test]
fn every_bug_is_noticed_by_the_cases_that_are_there_for_it() {
    let mut unnoticed = Vec::new();
    for (bug, names) in NOTICED {
        for name in *names {
            let (_, case) = CASES.iter().find(|(case, _)| case == name).expect("a case");
            if outcome(*bug, *case) == Outcome::Passed {
                unnoticed.push((bug, name));
            }
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn every_case_notices_some_bug() {
    let noticing = |name| NOTICED.iter().any(|(_, names)| names.contains(name));
    let vacuous: Vec<_> = CASES.iter().filter(|(name, _)| !noticing(name)).collect();
    assert!(vacuous.is_empty(), "{vacuous:?}");
}

#[derive(Debug, Eq, PartialEq)]
enum Outcome {
    Passed,
    Failed,
}

fn outcome(bug: Bug, case: Case) -> Outcome {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        pause();
        let fixture = Broken(Arc::new(Store::new(bug)));
        let run = timeout(Duration::from_secs(3600), case(&fixture));
        match AssertUnwindSafe(run).catch_unwind().await {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(_)) | Err(_) => Outcome::Failed,
        }
    })
}

struct Broken(Arc<Store>);

#[async_trait]
impl Fixture for Broken {
    fn client(&self) -> TestClient {
        let (writing, reading) = (Arc::clone(&self.0), Arc::clone(&self.0));
        let first_runtime = OnceLock::new();
        TestClient::new(
            move || {
                let (tasks, store) = (TaskGroup::new(), Arc::clone(&writing));
                Arc::new(BrokenRegistrar { store, tasks })
            },
            move |service| {
                let _entered = (reading.bug == Bug::DiesWithItsRuntime)
                    .then(|| first_runtime.get_or_init(Handle::current).enter());
                instancer(&reading, service)
            },
        )
    }

    async fn n_reads(&self) -> Option<u64> {
        Some(self.0.n_reads())
    }

    async fn interrupt(&self) {
        self.0.set(true, false);
    }

    async fn freeze(&self) {
        self.0.set(false, true);
    }

    async fn resume(&self) {
        self.0.set(false, false);
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        self.0.remove(service, id);
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    fn clock(&self) -> Clock {
        Clock::Paused
    }
}

fn instancer(store: &Arc<Store>, service: &str) -> TestInstancer {
    let source = Reader::new(Arc::clone(store), service);
    let mut config = RegistryConfig::default();
    if store.bug == Bug::Gullible {
        config = config.loss(LossPolicy::Accept);
    }
    let publisher = Publisher::new("test", service, config);
    if store.bug == Bug::EndsWithInstancer {
        let (config, tasks) = (FollowConfig::default(), TaskGroup::new());
        let subscription = publisher.subscribe();
        let nudge = Arc::new(Notify::new());
        tasks.spawn(|stop| follow("test", source, publisher, config, nudge, stop));
        return TestInstancer::new(Ending(subscription, tasks), async {});
    }
    let follower = Follower::new(source, publisher);
    let slow = store.bug == Bug::SlowClose;
    TestInstancer::new(follower.clone(), async move {
        if slow {
            sleep(SLOW).await;
        }
        follower.close().await;
    })
}

async fn closing(bug: Bug, tasks: TaskGroup) {
    if bug == Bug::SlowClose {
        sleep(SLOW).await;
    }
    tasks.close().await;
}

struct BrokenRegistrar {
    store: Arc<Store>,
    tasks: TaskGroup,
}

#[async_trait]
impl Registrar for BrokenRegistrar {
    async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        let writer = Box::new(Writer::new(Arc::clone(&self.store)));
        announce("test", writer, registration, AnnounceConfig::default(), &self.tasks).await
    }

    async fn close(&self) {
        closing(self.store.bug, self.tasks.clone()).await;
    }
}

/// Its tasks end with it.
struct Ending(Subscription, #[expect(dead_code, reason = "dropped with it")] TaskGroup);

impl Instancer for Ending {
    fn subscribe(&self) -> Subscription {
        self.0.clone()
    }
}

const SLOW: Duration = Duration::from_millis(1100);

const NOTICED: &[(Bug, &[&str])] = &[
    (
        Bug::Ghost,
        &["subscriber_has_a_snapshot_immediately", "late_subscriber_has_the_set_immediately"],
    ),
    (Bug::MissesChanges, &["registered_instance_is_seen", "two_subscribers_see_the_same"]),
    (Bug::StopsAfterFew, &["subscriber_that_never_reads_blocks_no_other"]),
    (Bug::EndsWithInstancer, &["subscription_outlives_its_instancer"]),
    (Bug::OneAddressOneEntry, &["one_of_two_with_the_same_address_is_seen"]),
    (Bug::FirstPageOnly, &["thousand_instances_are_seen"]),
    (
        Bug::WithdrawsNothing,
        &[
            "deregistered_instance_is_gone",
            "dropped_handle_deregisters",
            "closing_a_registrar_withdraws_and_leaks_nothing",
        ],
    ),
    (
        Bug::WithdrawsTheService,
        &[
            "registrations_of_one_registrar_are_independent",
            "rolling_replacement_loses_no_instance",
        ],
    ),
    (Bug::UnknownIsAnError, &["deregistering_an_entry_that_is_gone_succeeds"]),
    (Bug::EntryPerRegistration, &["id_registered_twice_is_one_entry"]),
    (Bug::RemovesFirst, &["update_is_seen_without_a_gap"]),
    (Bug::NeverNoticesLoss, &["expired_entry_comes_back"]),
    (
        Bug::ForgetsUpdates,
        &["update_is_seen_without_a_gap", "update_survives_the_loss_of_the_entry"],
    ),
    (
        Bug::HidesHealth,
        &[
            "critical_instance_is_not_offered_until_it_passes",
            "instance_that_starts_critical_is_not_offered",
        ],
    ),
    (Bug::MatchesPrefixes, &["service_does_not_see_one_whose_name_begins_with_its_own"]),
    (Bug::AsciiOnly, &["service_name_may_be_unicode", "instance_id_may_be_unicode"]),
    (
        Bug::Truncates,
        &["service_name_may_be_of_120_characters", "instance_id_may_be_of_120_characters"],
    ),
    (
        Bug::SplitsAtSlash,
        &["service_name_may_have_spaces_and_slashes", "instance_id_may_have_spaces_and_slashes"],
    ),
    (Bug::CleansPaths, &["service_name_like_a_path_works_or_is_refused"]),
    (Bug::Forgets("host"), &["host_name_survives", "ipv6_address_survives"]),
    (Bug::Forgets("port"), &["highest_port_survives"]),
    (Bug::Forgets("scheme"), &["scheme_survives"]),
    (Bug::Forgets("weight"), &["weight_survives", "weight_of_zero_survives"]),
    (Bug::Forgets("priority"), &["priority_survives"]),
    (Bug::Forgets("zone"), &["zone_survives"]),
    (Bug::Forgets("tags"), &["tags_survive"]),
    (Bug::Forgets("metadata"), &["metadata_survives"]),
    (Bug::Forgets("start time"), &["start_time_survives"]),
    (Bug::Forgets("status"), &["remains_that_drain_hide_no_live_instance"]),
    (Bug::AssertsWhileHung, &["hung_registry_is_stale_within_its_bound"]),
    (Bug::ReadsTenTimes, &["nudges_of_a_dead_instance_cost_one_read_a_second"]),
    (Bug::DiesWithItsRuntime, &["client_survives_its_first_runtime"]),
    (Bug::NudgeLosesPosition, &["nudges_of_a_dead_instance_break_no_watch"]),
    (
        Bug::SlowClose,
        &[
            "closing_an_instancer_takes_less_than_100_ms_and_leaks_nothing",
            "shutdown_during_an_outage_takes_less_than_a_second",
            "shutdown_while_the_registry_hangs_takes_less_than_a_second",
        ],
    ),
    (
        Bug::LeaksTasks,
        &[
            "closing_an_instancer_takes_less_than_100_ms_and_leaks_nothing",
            "dropping_the_instancer_and_its_subscriptions_leaks_nothing",
            "closing_a_registrar_withdraws_and_leaks_nothing",
            "deregistering_leaks_nothing",
        ],
    ),
    (
        Bug::HidesOutage,
        &[
            "outage_keeps_the_set_and_marks_it_stale",
            "subscriber_during_an_outage_has_the_last_set",
            "instancer_is_ready_when_the_registry_that_was_down_is_up",
            "first_registration_fails_fast_when_the_registry_is_down",
            "first_registration_in_the_background_succeeds_when_the_registry_is_up",
        ],
    ),
    (Bug::Gullible, &["instance_that_the_recovery_lacks_is_kept"]),
    (Bug::NeverConfirms, &["instance_that_the_recovery_lacks_is_kept"]),
    (Bug::ComesBackEmpty, &["recovery_is_fresh_and_complete"]),
    (
        Bug::WatchDies,
        &[
            "recovery_is_fresh_and_complete",
            "changes_after_an_outage_are_seen",
            "instance_that_left_during_the_outage_is_gone_after_it",
        ],
    ),
    (Bug::HangsForEver, &["changes_after_the_registry_hung_are_seen"]),
    (Bug::GivesUp, &["registration_is_back_after_an_outage_of_three_ttls"]),
    (
        Bug::AnnouncesAfterWithdrawal,
        &["deregistered_instance_is_gone", "deregistering_during_a_reconnect_leaves_nothing"],
    ),
    (Bug::WithdrawsForAnother, &["predecessor_that_leaves_last_takes_nothing_away"]),
    (Bug::WritesForAnother, &["predecessor_that_updates_takes_nothing_away"]),
    (Bug::RenewsForAnother, &["predecessor_observes_its_successor"]),
    (Bug::NeverBack, &["predecessor_is_back_when_its_successor_is_gone"]),
    (Bug::NeverRenewedOnceBack, &["predecessor_is_back_when_its_successor_is_gone"]),
    (Bug::RemovesRefused, &["refused_update_keeps_the_registration"]),
    (
        Bug::RenewsTooRarely,
        &[
            "registration_is_back_after_the_registry_hung_for_longer_than_the_ttl",
            "updates_every_tenth_of_the_ttl_are_without_a_gap",
            "process_suspended_for_longer_than_the_ttl_is_back_within_a_second",
            "registrations_of_one_registrar_are_independent",
        ],
    ),
];
