use std::time::Duration;

use tower_sd_core::Instance;

use super::*;
use crate::TestSet;

fn instances(n: u16) -> impl Iterator<Item = Instance> {
    (1..=n).map(|port| Instance::new("h", port))
}

fn shares(set: &mut TestSet, n: usize) -> Vec<usize> {
    let mut shares = vec![0; 10];
    (0..n).for_each(|_| shares[set.pick().expect("usable")] += 1);
    shares
}

fn know(set: &TestSet, index: usize, milliseconds: u64) {
    let stats = set.stats(index).expect("a member");
    let decay = Decay { tau: 3.0, peak: false };
    let (now, latency) = (stats.age(Instant::now()), Duration::from_millis(milliseconds));
    stats.latency.add(now, latency, decay, true);
}

#[test]
fn unknown_latencies_are_equal_and_slow_one_is_left_out() {
    let mut set = TestSet::new(&LeastLoaded::new(), instances(10));
    let equal = shares(&mut set, 10_000);
    assert!(equal.iter().all(|share| (800..1_200).contains(share)), "{equal:?}");
    (0..9).for_each(|index| know(&set, index, 10));
    know(&set, 9, 100);
    assert_eq!(shares(&mut set, 10_000)[9], 0);
}

/// Whatever the number of those that are compared, and of members.
#[test]
fn members_that_cost_the_same_have_equal_shares() {
    for (choices, len) in (1..=8).flat_map(|n| (1..=10).map(move |len| (n, len))) {
        let balancer = LeastLoaded::least_requests().choices(choices);
        let mut set = TestSet::new(&balancer, instances(len));
        let n = usize::from(len);
        let shares = shares(&mut set, n * 1_000);
        let is_even = |share: &usize| (840..1_160).contains(share);
        assert!(shares[..n].iter().all(is_even), "{choices} of {len}: {shares:?}");
    }
}

#[test]
fn new_one_costs_as_much_as_those_that_it_is_compared_with() {
    let mut set = TestSet::new(&LeastLoaded::new(), instances(10));
    (0..9).for_each(|index| know(&set, index, 10));
    let share = shares(&mut set, 10_000)[9];
    assert!((300..3_500).contains(&share), "{share}");
}

#[test]
fn only_least_requests_ignores_latencies() {
    for (balancer, expected) in [
        (LeastLoaded::new(), 0..=0),
        (LeastLoaded::peak_ewma(), 0..=0),
        (LeastLoaded::least_requests(), 400..=600),
    ] {
        let mut set = TestSet::new(&balancer, instances(2));
        know(&set, 0, 10);
        know(&set, 1, 50);
        let slow = shares(&mut set, 1_000)[1];
        assert!(expected.contains(&slow), "{balancer:?}: {slow}");
    }
}

/// Of ten members one is the fastest: it is among those that are compared, or not.
#[test]
fn setting_of_choices_is_clamped() {
    let share = |balancer: LeastLoaded| {
        let mut set = TestSet::new(&balancer, instances(10));
        (0..10).for_each(|index| know(&set, index, if index == 3 { 10 } else { 50 }));
        shares(&mut set, 10_000)[3]
    };
    for (set, expected) in [(0, 1), (1, 1), (2, 2), (8, 8), (9, 8), (usize::MAX, 8)] {
        let share = share(LeastLoaded::new().choices(set));
        let expected = expected * 1_000;
        assert!((expected - 200..=expected + 200).contains(&share), "{set}: {share}");
    }
    let of_three = 2_800..=3_200;
    assert!(of_three.contains(&share(LeastLoaded::new())));
    assert!(of_three.contains(&share(LeastLoaded::default())));
    let of_two = 1_800..=2_200;
    assert!(of_two.contains(&share(LeastLoaded::peak_ewma())));
}

/// That of an unknown member is the lower median of the known ones.
#[test]
fn unknown_latency_is_no_merit_and_no_fault() {
    for (known, expected) in [(&[10, 50][..], &[0, 2][..]), (&[10, 20, 50], &[0])] {
        let n = known.len() + 1;
        let balancer = LeastLoaded::new().choices(n);
        let mut set = TestSet::new(&balancer, instances(10).take(n));
        known.iter().enumerate().for_each(|(index, latency)| know(&set, index, *latency));
        let shares = shares(&mut set, 1_000);
        let picked: Vec<_> = (0..10).filter(|index| shares[*index] > 0).collect();
        assert_eq!(picked, expected, "{known:?}: {shares:?}");
    }
}

#[test]
fn request_in_flight_costs_what_the_mean_weight_is_to_the_own() {
    assert_eq!(loads(&[1, 3]), [2.0, 2.0 / 3.0]);
    assert_eq!(loads(&[1, 1, 4]), [2.0, 2.0, 0.5]);
}

#[test]
fn weights_decide_how_often_members_are_drawn() {
    let weigh = |instance: Instance| {
        let weight = if instance.port() <= 5 { 1 } else { 3 };
        instance.with_weight(weight)
    };
    let mut set = TestSet::new(&LeastLoaded::new().choices(1), instances(10).map(weigh));
    let share: usize = shares(&mut set, 10_000)[..5].iter().sum();
    assert!((2_300..2_700).contains(&share), "{share}");
}

#[test]
fn unusable_members_are_never_picked_and_last_one_is_found() {
    for balancer in [LeastLoaded::new(), LeastLoaded::least_requests(), LeastLoaded::peak_ewma()] {
        let mut set = TestSet::new(&balancer, instances(10));
        (0..9).for_each(|index| set.exclude(index));
        assert_eq!(shares(&mut set, 100)[9], 100);
        set.exclude(9);
        assert_eq!(set.pick(), None);
    }
}
