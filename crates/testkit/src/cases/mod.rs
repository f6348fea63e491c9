//! The cases of the suite: one list, which every backend and every wrapper runs.
//!
//! To add one: a function in the file of its topic, its name in [`CASES`], and a bug that it
//! notices in `tests/suite/main.rs`; in [`ALONE`] too if it disturbs others.

mod carrying;
mod client;
mod closing;
mod following;
mod health;
mod keeping;
mod naming;
mod owning;
mod registering;

use futures_util::future::BoxFuture;

use crate::{Fixture, outage};

/// One behaviour, which holds or panics.
pub type Case = for<'a> fn(&'a dyn Fixture) -> BoxFuture<'a, ()>;

/// All of them, by name.
pub const CASES: &[(&str, Case)] = &[
    // Following.
    ("subscriber_has_a_snapshot_immediately", following::subscriber_has_a_snapshot_immediately),
    ("late_subscriber_has_the_set_immediately", following::late_subscriber_has_the_set_immediately),
    ("two_subscribers_see_the_same", following::two_subscribers_see_the_same),
    (
        "subscriber_that_never_reads_blocks_no_other",
        following::subscriber_that_never_reads_blocks_no_other,
    ),
    ("subscription_outlives_its_instancer", following::subscription_outlives_its_instancer),
    (
        "one_of_two_with_the_same_address_is_seen",
        following::one_of_two_with_the_same_address_is_seen,
    ),
    (
        "remains_that_drain_hide_no_live_instance",
        following::remains_that_drain_hide_no_live_instance,
    ),
    ("hung_registry_is_stale_within_its_bound", following::hung_registry_is_stale_within_its_bound),
    (
        "nudges_of_a_dead_instance_break_no_watch",
        following::nudges_of_a_dead_instance_break_no_watch,
    ),
    (
        "nudges_of_a_dead_instance_cost_one_read_a_second",
        following::nudges_of_a_dead_instance_cost_one_read_a_second,
    ),
    ("client_survives_its_first_runtime", client::client_survives_its_first_runtime),
    ("rolling_replacement_loses_no_instance", following::rolling_replacement_loses_no_instance),
    ("thousand_instances_are_seen", following::thousand_instances_are_seen),
    // Registering.
    ("registered_instance_is_seen", registering::registered_instance_is_seen),
    ("deregistered_instance_is_gone", registering::deregistered_instance_is_gone),
    ("dropped_handle_deregisters", registering::dropped_handle_deregisters),
    (
        "registrations_of_one_registrar_are_independent",
        registering::registrations_of_one_registrar_are_independent,
    ),
    (
        "deregistering_an_entry_that_is_gone_succeeds",
        registering::deregistering_an_entry_that_is_gone_succeeds,
    ),
    ("id_registered_twice_is_one_entry", registering::id_registered_twice_is_one_entry),
    // Keeping registrations up.
    ("update_is_seen_without_a_gap", keeping::update_is_seen_without_a_gap),
    ("expired_entry_comes_back", keeping::expired_entry_comes_back),
    ("update_survives_the_loss_of_the_entry", keeping::update_survives_the_loss_of_the_entry),
    ("refused_update_keeps_the_registration", keeping::refused_update_keeps_the_registration),
    (
        "updates_every_tenth_of_the_ttl_are_without_a_gap",
        keeping::updates_every_tenth_of_the_ttl_are_without_a_gap,
    ),
    // Owning an entry.
    (
        "predecessor_that_leaves_last_takes_nothing_away",
        owning::predecessor_that_leaves_last_takes_nothing_away,
    ),
    (
        "predecessor_that_updates_takes_nothing_away",
        owning::predecessor_that_updates_takes_nothing_away,
    ),
    ("predecessor_observes_its_successor", owning::predecessor_observes_its_successor),
    (
        "predecessor_is_back_when_its_successor_is_gone",
        owning::predecessor_is_back_when_its_successor_is_gone,
    ),
    // Health.
    (
        "critical_instance_is_not_offered_until_it_passes",
        health::critical_instance_is_not_offered_until_it_passes,
    ),
    (
        "instance_that_starts_critical_is_not_offered",
        health::instance_that_starts_critical_is_not_offered,
    ),
    // Names.
    (
        "service_does_not_see_one_whose_name_begins_with_its_own",
        naming::service_does_not_see_one_whose_name_begins_with_its_own,
    ),
    ("service_name_may_be_unicode", naming::service_name_may_be_unicode),
    ("service_name_may_be_of_120_characters", naming::service_name_may_be_of_120_characters),
    ("service_name_may_have_spaces_and_slashes", naming::service_name_may_have_spaces_and_slashes),
    (
        "service_name_like_a_path_works_or_is_refused",
        naming::service_name_like_a_path_works_or_is_refused,
    ),
    ("instance_id_may_be_unicode", naming::instance_id_may_be_unicode),
    ("instance_id_may_be_of_120_characters", naming::instance_id_may_be_of_120_characters),
    ("instance_id_may_have_spaces_and_slashes", naming::instance_id_may_have_spaces_and_slashes),
    // What an instance carries.
    ("host_name_survives", carrying::host_name_survives),
    ("ipv6_address_survives", carrying::ipv6_address_survives),
    ("highest_port_survives", carrying::highest_port_survives),
    ("scheme_survives", carrying::scheme_survives),
    ("weight_survives", carrying::weight_survives),
    ("weight_of_zero_survives", carrying::weight_of_zero_survives),
    ("priority_survives", carrying::priority_survives),
    ("zone_survives", carrying::zone_survives),
    ("tags_survive", carrying::tags_survive),
    ("metadata_survives", carrying::metadata_survives),
    ("start_time_survives", carrying::start_time_survives),
    // Ends.
    (
        "closing_an_instancer_takes_less_than_100_ms_and_leaks_nothing",
        closing::closing_an_instancer_takes_less_than_100_ms_and_leaks_nothing,
    ),
    (
        "dropping_the_instancer_and_its_subscriptions_leaks_nothing",
        closing::dropping_the_instancer_and_its_subscriptions_leaks_nothing,
    ),
    (
        "closing_a_registrar_withdraws_and_leaks_nothing",
        closing::closing_a_registrar_withdraws_and_leaks_nothing,
    ),
    ("deregistering_leaks_nothing", closing::deregistering_leaks_nothing),
    // Outages.
    ("outage_keeps_the_set_and_marks_it_stale", outage::outage_keeps_the_set_and_marks_it_stale),
    (
        "subscriber_during_an_outage_has_the_last_set",
        outage::subscriber_during_an_outage_has_the_last_set,
    ),
    ("recovery_is_fresh_and_complete", outage::recovery_is_fresh_and_complete),
    ("instance_that_the_recovery_lacks_is_kept", outage::instance_that_the_recovery_lacks_is_kept),
    ("changes_after_an_outage_are_seen", outage::changes_after_an_outage_are_seen),
    (
        "instance_that_left_during_the_outage_is_gone_after_it",
        outage::instance_that_left_during_the_outage_is_gone_after_it,
    ),
    (
        "registration_is_back_after_an_outage_of_three_ttls",
        outage::registration_is_back_after_an_outage_of_three_ttls,
    ),
    (
        "deregistering_during_a_reconnect_leaves_nothing",
        outage::deregistering_during_a_reconnect_leaves_nothing,
    ),
    (
        "instancer_is_ready_when_the_registry_that_was_down_is_up",
        outage::instancer_is_ready_when_the_registry_that_was_down_is_up,
    ),
    (
        "first_registration_fails_fast_when_the_registry_is_down",
        outage::first_registration_fails_fast_when_the_registry_is_down,
    ),
    (
        "first_registration_in_the_background_succeeds_when_the_registry_is_up",
        outage::first_registration_in_the_background_succeeds_when_the_registry_is_up,
    ),
    (
        "shutdown_during_an_outage_takes_less_than_a_second",
        outage::shutdown_during_an_outage_takes_less_than_a_second,
    ),
    (
        "shutdown_while_the_registry_hangs_takes_less_than_a_second",
        outage::shutdown_while_the_registry_hangs_takes_less_than_a_second,
    ),
    ("changes_after_the_registry_hung_are_seen", outage::changes_after_the_registry_hung_are_seen),
    (
        "registration_is_back_after_the_registry_hung_for_longer_than_the_ttl",
        outage::registration_is_back_after_the_registry_hung_for_longer_than_the_ttl,
    ),
    (
        "process_suspended_for_longer_than_the_ttl_is_back_within_a_second",
        outage::process_suspended_for_longer_than_the_ttl_is_back_within_a_second,
    ),
];

/// Cases beside which no other one runs on a real server.
///
/// They take the registry away, count its requests or the sockets of this process, or leave it no
/// time for others.
pub(crate) const ALONE: &[&str] = &[
    "hung_registry_is_stale_within_its_bound",
    "nudges_of_a_dead_instance_cost_one_read_a_second",
    "thousand_instances_are_seen",
    "closing_an_instancer_takes_less_than_100_ms_and_leaks_nothing",
    "dropping_the_instancer_and_its_subscriptions_leaks_nothing",
    "closing_a_registrar_withdraws_and_leaks_nothing",
    "deregistering_leaks_nothing",
    "outage_keeps_the_set_and_marks_it_stale",
    "subscriber_during_an_outage_has_the_last_set",
    "recovery_is_fresh_and_complete",
    "instance_that_the_recovery_lacks_is_kept",
    "changes_after_an_outage_are_seen",
    "instance_that_left_during_the_outage_is_gone_after_it",
    "registration_is_back_after_an_outage_of_three_ttls",
    "deregistering_during_a_reconnect_leaves_nothing",
    "instancer_is_ready_when_the_registry_that_was_down_is_up",
    "first_registration_fails_fast_when_the_registry_is_down",
    "first_registration_in_the_background_succeeds_when_the_registry_is_up",
    "shutdown_during_an_outage_takes_less_than_a_second",
    "shutdown_while_the_registry_hangs_takes_less_than_a_second",
    "changes_after_the_registry_hung_are_seen",
    "registration_is_back_after_the_registry_hung_for_longer_than_the_ttl",
    "process_suspended_for_longer_than_the_ttl_is_back_within_a_second",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_that_runs_alone_is_one() {
        let is_case = |name: &&str| CASES.iter().any(|(case, _)| case == name);
        assert!(ALONE.iter().all(is_case), "{ALONE:?}");
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let mut names: Vec<_> = CASES.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }
}
