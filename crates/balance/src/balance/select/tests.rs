use super::*;
use crate::{RoundRobin, TestSet};

/// Three of v1, of which one is tagged, and two of v2.
fn instances() -> Vec<Instance> {
    let version = |port| if port <= 3 { "v1" } else { "v2" };
    let mut all: Vec<_> = (1..=5)
        .map(|port| Instance::new("h", port).with_metadata("version", version(port)))
        .collect();
    all[0] = all[0].clone().with_tags(["fast", "pinned"]);
    all
}

fn picked(set: &mut TestSet, label: Option<&str>) -> Vec<usize> {
    let scope = RequestScope::new();
    set.set_scope(match label {
        Some(label) => scope.with_label(label),
        None => scope,
    });
    let mut picked: Vec<_> = (0..60).filter_map(|_| set.pick()).collect();
    let total = picked.len();
    picked.sort_unstable();
    let counts = picked.chunk_by(|a, b| a == b).map(<[usize]>::len);
    assert!(counts.clone().all(|n| n * counts.clone().count() == total), "in turn: {picked:?}");
    picked.dedup();
    picked
}

#[test]
fn request_goes_to_members_with_its_label() {
    let mut set = TestSet::new(&Select::by_metadata("version", RoundRobin::new()), instances());
    assert_eq!(picked(&mut set, Some("v1")), [0, 1, 2]);
    assert_eq!(picked(&mut set, Some("v2")), [3, 4]);
    assert_eq!(picked(&mut set, None), [0, 1, 2, 3, 4]);
    let mut set = TestSet::new(&Select::by_tag(RoundRobin::new()), instances());
    assert_eq!(picked(&mut set, Some("pinned")), [0]);
}

#[test]
fn fallback_decides_where_no_member_has_the_label() {
    let by_version = || Select::by_metadata("version", RoundRobin::new());
    let rows: [(Fallback, &[usize], &[usize]); 3] = [
        (Fallback::Any, &[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4]),
        (Fallback::Label("v2".to_owned()), &[3, 4], &[3, 4]),
        (Fallback::Fail, &[], &[0, 1, 2, 3, 4]),
    ];
    for (fallback, unmatched, unlabelled) in rows {
        let mut set = TestSet::new(&by_version().fallback(fallback.clone()), instances());
        assert_eq!(picked(&mut set, Some("v3")), unmatched, "{fallback:?}");
        assert_eq!(picked(&mut set, None), unlabelled, "{fallback:?}");
    }
    let mut set = TestSet::new(&by_version().fallback(Fallback::Fail), instances());
    [3, 4].into_iter().for_each(|index| set.exclude(index));
    assert!(picked(&mut set, Some("v2")).is_empty(), "its members are not usable");
}

#[test]
fn labels_that_panic_leave_one_member_out() {
    let labels = |instance: &Instance| match instance.port() {
        2 => panic!("a bug of the user's"),
        _ => vec![instance.metadata()["version"].clone()],
    };
    let select = Select::by(labels, RoundRobin::new()).fallback(Fallback::Fail);
    let mut set = TestSet::new(&select, instances());
    assert_eq!(picked(&mut set, Some("v1")), [0, 2]);
    assert_eq!(picked(&mut set, Some("v2")), [3, 4]);
    assert_eq!(picked(&mut set, None), [0, 1, 2, 3, 4]);
}
