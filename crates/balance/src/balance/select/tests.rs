use super::*;
use crate::{Prioritized, RoundRobin, TestSet, ZoneAware};

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

/// Labels that take turns, each of two members.
#[test]
fn members_of_many_labels_are_used_evenly() {
    let labelled = |port: u16| Instance::new("h", port).with_metadata("t", (port / 2).to_string());
    let inners: [fn() -> Select; 3] = [
        || Select::by_metadata("t", RoundRobin::new()),
        || Select::by_metadata("t", ZoneAware::new("z", RoundRobin::new())),
        || Select::by_metadata("t", Prioritized::new(Select::by_metadata("t", RoundRobin::new()))),
    ];
    for select in inners {
        for weight in [1, 3] {
            let weigh = |port: u16| {
                labelled(port).with_weight(if port.is_multiple_of(2) { 1 } else { weight })
            };
            let mut set = TestSet::new(&select(), (0..80).map(weigh));
            for other in 1..40 {
                let mut counts = [0; 80];
                for turn in 0..400 {
                    let label = if turn % 2 == 0 { 0 } else { other };
                    set.set_scope(RequestScope::new().with_label(label.to_string()));
                    counts[set.pick().expect("a member")] += 1;
                }
                for light in [0, 2 * other] {
                    let share = 200 / (1 + usize::try_from(weight).expect("small"));
                    let n = counts[light];
                    assert!(n * 5 >= share * 4 && n * 5 <= share * 6, "{other}: {n} of {share}");
                }
            }
        }
    }
}

#[test]
fn label_that_is_named_twice_counts_once() {
    let twice = |instance: &Instance| match instance.port() {
        1 => vec!["v1".to_owned(), "v1".to_owned()],
        _ => vec!["v1".to_owned()],
    };
    let mut set = TestSet::new(&Select::by(twice, RoundRobin::new()), instances());
    assert_eq!(picked(&mut set, Some("v1")), [0, 1, 2, 3, 4]);
}

/// Its pickers for two members panic.
#[derive(Debug)]
struct Broken;

impl Balancer for Broken {
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker> {
        assert_ne!(members.len(), 2, "a bug of the user's");
        RoundRobin::new().picker(members)
    }
}

#[test]
fn balancer_that_panics_for_a_label_leaves_members_apart() {
    let select = Select::by_metadata("version", Broken).fallback(Fallback::Fail);
    let mut set = TestSet::new(&select, instances());
    assert_eq!(picked(&mut set, Some("v1")), [0, 1, 2]);
    assert_eq!(picked(&mut set, Some("v2")), [3, 4]);
}
