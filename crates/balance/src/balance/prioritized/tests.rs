use tower_sd_core::{Instance, InstanceStatus};

use super::*;
use crate::{RoundRobin, TestSet};

/// Members, some of which are not usable.
struct World {
    instances: Vec<Instance>,
    unusable: Vec<usize>,
}

impl World {
    /// Of `(priority, weight)`.
    fn of(members: &[(u32, u32)]) -> Self {
        let instances = members.iter().zip(8001..).map(|(&(priority, weight), port)| {
            Instance::new("127.0.0.1", port).with_priority(priority).with_weight(weight)
        });
        Self { instances: instances.collect(), unusable: Vec::new() }
    }

    fn without(self, unusable: &[usize]) -> Self {
        Self { unusable: unusable.to_vec(), ..self }
    }

    /// How often each is picked in `n` picks, and how often none is.
    fn counts(&self, balancer: &dyn Balancer, n: usize) -> (Vec<usize>, usize) {
        let mut set = TestSet::new(balancer, self.instances.iter().cloned());
        self.unusable.iter().for_each(|&index| set.exclude(index));
        let (mut counts, mut none) = (vec![0; self.instances.len()], 0);
        for _ in 0..n {
            match set.pick() {
                Some(index) => counts[index] += 1,
                None => none += 1,
            }
        }
        (counts, none)
    }
}

/// Pearson's statistic.
fn chi_squared(counts: &[usize], weights: &[u32]) -> f64 {
    let total: f64 = weights.iter().copied().map(f64::from).sum();
    let n = number(counts.iter().sum());
    let terms = counts.iter().zip(weights).map(|(&count, &weight)| {
        let expected = n * f64::from(weight) / total;
        (number(count) - expected).powi(2) / expected
    });
    terms.sum()
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a small number"))
}

/// Weights as DNS has them are 0 (1 for us), equal, and 1:10:100 (times 100). The bounds are those
/// of p = 0.001.
#[test]
fn weights_are_obeyed_within_a_chi_squared_bound() {
    let rows: [(&[u32], f64); 3] =
        [(&[100, 100, 100, 100], 16.27), (&[100, 1000, 10_000], 13.82), (&[1, 100, 100], 13.82)];
    for (weights, bound) in rows {
        let members: Vec<_> = weights.iter().map(|&weight| (10, weight)).collect();
        let (counts, none) = World::of(&members).counts(&Prioritized::default(), 100_000);
        assert_eq!(none, 0);
        let chi_squared = chi_squared(&counts, weights);
        assert!(chi_squared < bound, "{weights:?}: {counts:?} has {chi_squared}");
        assert!(counts.iter().all(|&count| count > 0), "hardly ever is not never: {counts:?}");
    }
}

#[test]
fn next_priority_is_used_when_the_better_one_is_unusable() {
    let world = || World::of(&[(20, 100), (10, 100), (20, 100), (10, 1), (30, 100)]);
    let balancer = Prioritized::default();
    let (counts, _) = world().counts(&balancer, 10_000);
    assert!(counts[1] > 0 && counts[3] > 0, "{counts:?}");
    assert_eq!((counts[0], counts[2], counts[4]), (0, 0, 0));

    let (counts, _) = world().without(&[1]).counts(&balancer, 100);
    assert_eq!(counts, [0, 0, 0, 100, 0], "one is left, however light");

    let (counts, _) = world().without(&[1, 3]).counts(&balancer, 10_000);
    assert!(counts[0] > 0 && counts[2] > 0, "{counts:?}");
    assert_eq!((counts[1], counts[3], counts[4]), (0, 0, 0));

    let (_, none) = world().without(&[0, 1, 2, 3, 4]).counts(&balancer, 10);
    assert_eq!(none, 10);
}

#[test]
fn weight_of_zero_gets_no_traffic_and_its_priority_is_left_out() {
    let (counts, none) =
        World::of(&[(10, 0), (10, 5), (20, 100)]).counts(&Prioritized::default(), 1000);
    assert_eq!((counts, none), (vec![0, 1000, 0], 0));
    let (counts, none) = World::of(&[(10, 0), (20, 100)]).counts(&Prioritized::default(), 1000);
    assert_eq!((counts, none), (vec![0, 1000], 0));
}

/// What is left is drawn by weight: none inherits the share of a neighbour.
#[test]
fn weights_are_obeyed_when_the_heaviest_is_not_usable() {
    let world = World::of(&[(10, 10), (10, 1_000_000), (10, 30)]).without(&[1]);
    let (counts, none) = world.counts(&Prioritized::default(), 40_000);
    assert_eq!((counts[1], none), (0, 0));
    let chi_squared = chi_squared(&[counts[0], counts[2]], &[10, 30]);
    assert!(chi_squared < 10.83, "{counts:?} has {chi_squared}");
}

#[test]
fn another_balancer_chooses_within_a_priority() {
    let world = World::of(&[(20, 100), (10, 7), (10, 7), (10, 7)]);
    let in_turn = Prioritized::new(RoundRobin::new().with_start(0));
    assert_eq!(world.counts(&in_turn, 300).0, [0, 100, 100, 100]);
}

/// Of 1 000 members in each of two zones 7 are usable.
#[test]
fn few_usable_members_share_the_load_in_proportion() {
    let zoned = |port: u16| Instance::new("127.0.0.1", port).with_priority(u32::from(port > 1_000));
    let (usable, unusable): (Vec<_>, Vec<_>) =
        (1..=2_000).map(zoned).partition(|instance| instance.port() % 1_000 < 7);
    let balancer = Prioritized::default().panic_threshold(0);
    let mut set = TestSet::with_unusable(&balancer, usable.clone(), unusable);
    let n = (0..10_000).filter_map(|_| set.pick()).filter(|&at| usable[at].port() > 1_000).count();
    assert!((4_500..5_500).contains(&n), "{n}");
}

/// A rolling update needs no other zone.
#[test]
fn draining_instances_are_not_missing() {
    let of = |port: u16| Instance::new("127.0.0.1", port).with_priority(u32::from(port > 8));
    let draining = (5..=8).map(|port| of(port).with_status(InstanceStatus::Draining));
    let usable = (1..=4).chain(9..=12).map(of);
    let mut set = TestSet::with_unusable(&Prioritized::default(), usable, draining);
    assert!((0..1_000).all(|_| set.pick().is_some_and(|index| index < 4)));
}

#[test]
fn instance_whose_priority_panics_has_the_last() {
    let priority = |instance: &Instance| match instance.port() {
        8001 => panic!("a bug of the user's"),
        _ => instance.priority(),
    };
    let balancer = Prioritized::by(priority, RoundRobin::new());
    let members = World::of(&[(0, 1), (0, 1), (1, 1)]);
    assert_eq!(members.counts(&balancer, 100), (vec![0, 100, 0], 0));
    let (counts, none) = members.without(&[1, 2]).counts(&balancer, 100);
    assert_eq!((counts[0], none), (100, 0));
}
