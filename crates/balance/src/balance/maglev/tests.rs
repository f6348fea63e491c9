use tower_sd_core::Instance;

use super::*;
use crate::TestSet;

fn weighing(weights: &[usize]) -> Vec<(InstanceId, usize)> {
    let id = |n: usize| InstanceId::from(format!("10.{}.{}:80", n / 256, n % 256));
    weights.iter().enumerate().map(|(n, weight)| (id(n), *weight)).collect()
}

#[test]
fn loads_are_even_and_follow_weights() {
    for n in [3, 10, 100, 1_000, 10_000] {
        let places = places(&weighing(&vec![1; n]));
        let mut loads = vec![0; n];
        places.iter().for_each(|&member| loads[usize::try_from(member).expect("small")] += 1);
        let max = *loads.iter().max().expect("members");
        assert!(max * n * 100 <= places.len() * 102, "{n}: {max}");
    }
    let places = places(&weighing(&[1, 3]));
    let n = places.iter().filter(|&&member| member == 0).count();
    assert!((240..260).contains(&(n * 1_000 / places.len())), "{n}");
}

#[test]
fn light_members_have_their_share() {
    for (weights, n_light) in [([vec![100; 500], vec![1; 500]].concat(), 500), (vec![1, 100], 1)] {
        let places = places(&weighing(&weights));
        let is_light = |member: u32| weights[usize::try_from(member).expect("small")] == 1;
        let n = places.iter().filter(|&&member| is_light(member)).count();
        let expected = places.len() * n_light / weights.iter().sum::<usize>();
        assert!((expected * 95..=expected * 105).contains(&(n * 100)), "{n}, not {expected}");
    }
}

#[test]
fn few_keys_move_when_one_of_a_hundred_leaves() {
    let all = weighing(&[1; 100]);
    let (before, after) = (places(&all), places(&all[..99]));
    let moved = before.iter().zip(&after).filter(|(a, b)| **a != 99 && a != b).count();
    assert!(moved * 50 < before.len(), "{moved} of {}", before.len());
}

#[test]
fn same_members_in_another_order_share_a_table() {
    let instances: Vec<_> = (1..=10).map(|port| Instance::new("h", port)).collect();
    let balancer = Maglev::new();
    let mut forward = TestSet::new(&balancer, instances.clone());
    let mut backward = TestSet::new(&balancer, instances.clone().into_iter().rev());
    assert_eq!(balancer.tables.lock().expect("no panic").len(), 1);
    for key in 0..100 {
        [&mut forward, &mut backward]
            .iter_mut()
            .for_each(|set| set.set_scope(RequestScope::new().with_key(key)));
        assert_eq!(forward.pick().map(|index| 9 - index), backward.pick());
    }
    let _fewer = TestSet::new(&balancer, instances[1..].iter().cloned());
    drop((forward, backward));
    let _again = TestSet::new(&balancer, instances);
    assert_eq!(balancer.tables.lock().expect("no panic").len(), 2, "unused ones are dropped");
}

#[test]
fn key_keeps_its_member_and_unusable_one_is_skipped() {
    let mut set = TestSet::new(&Maglev::new(), (1..=5).map(|port| Instance::new("h", port)));
    let mut hits = Vec::new();
    for key in 0..100 {
        set.set_scope(RequestScope::new().with_key(key));
        let first = set.pick().expect("usable");
        assert!((0..5).all(|_| set.pick() == Some(first)), "the same");
        hits.push(first);
    }
    set.exclude(2);
    let mut new = Vec::new();
    for (key, before) in (0..100).zip(hits) {
        set.set_scope(RequestScope::new().with_key(key));
        let now = set.pick().expect("usable");
        assert!(now == before || before == 2, "only keys of the lost one move");
        if before == 2 {
            new.push(now);
        }
    }
    new.sort_unstable();
    new.dedup();
    assert!(new.len() > 1, "its keys are spread: {new:?}");
}

#[test]
fn requests_without_a_key_are_those_of_another_balancer() {
    let instances = || (1..=4).map(|port| Instance::new("h", port));
    let mut set = TestSet::new(&Maglev::new().keyless(crate::RoundRobin::new()), instances());
    let picked: Vec<_> = (0..8).map(|_| set.pick().expect("usable")).collect();
    let first = picked[0];
    assert_eq!(picked, (0..8).map(|n| (first + n) % 4).collect::<Vec<_>>(), "in turn");
    let mut alone = TestSet::new(&Maglev::new(), instances());
    for key in 0..100 {
        [&mut set, &mut alone]
            .iter_mut()
            .for_each(|set| set.set_scope(RequestScope::new().with_key(key)));
        assert_eq!(set.pick(), alone.pick(), "by key {key}");
    }
}
