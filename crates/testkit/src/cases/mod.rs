//! The cases of the suite: one list, which every backend and every wrapper runs.

mod following;
mod keeping;
mod registering;

use futures_util::future::BoxFuture;

use crate::Fixture;

/// One behaviour, which holds or panics.
pub type Case = for<'a> fn(&'a dyn Fixture) -> BoxFuture<'a, ()>;

/// All of them, by name.
pub const CASES: &[(&str, Case)] = &[
    // Following.
    (
        "subscriber_has_a_snapshot_at_once",
        following::subscriber_has_a_snapshot_at_once,
    ),
    (
        "late_subscriber_has_the_set_at_once",
        following::late_subscriber_has_the_set_at_once,
    ),
    (
        "two_subscribers_see_the_same",
        following::two_subscribers_see_the_same,
    ),
    // Registering.
    (
        "registered_instance_is_seen",
        registering::registered_instance_is_seen,
    ),
    (
        "deregistered_instance_is_gone",
        registering::deregistered_instance_is_gone,
    ),
    (
        "dropped_handle_deregisters",
        registering::dropped_handle_deregisters,
    ),
    (
        "registrations_of_one_registrar_are_independent",
        registering::registrations_of_one_registrar_are_independent,
    ),
    (
        "deregistering_an_entry_that_is_gone_succeeds",
        registering::deregistering_an_entry_that_is_gone_succeeds,
    ),
    (
        "id_registered_twice_is_one_entry",
        registering::id_registered_twice_is_one_entry,
    ),
    // Keeping registrations up.
    (
        "update_is_seen_without_a_gap",
        keeping::update_is_seen_without_a_gap,
    ),
    (
        "expired_entry_comes_back",
        keeping::expired_entry_comes_back,
    ),
    (
        "update_survives_the_loss_of_the_entry",
        keeping::update_survives_the_loss_of_the_entry,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let mut names: Vec<_> = CASES.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }
}
