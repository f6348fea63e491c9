use tower_sd_core::Instance;

use super::*;
use crate::TestSet;

fn ids(n: usize) -> Vec<InstanceId> {
    (0..n).map(|n| InstanceId::from(format!("10.0.{}.{}:80", n / 256, n % 256))).collect()
}

#[test]
fn loads_are_even_and_follow_weights() {
    for n in [3, 10, 100, 1_000] {
        let table = table(&ids(n), &vec![1; n]);
        let mut loads = vec![0; n];
        table.iter().for_each(|&index| loads[usize::try_from(index).expect("small")] += 1);
        let max = *loads.iter().max().expect("members");
        assert!(max * n * 100 <= table.len() * 102, "{n}: {max}");
    }
    let table = table(&ids(2), &[1, 3]);
    let n = table.iter().filter(|&&index| index == 0).count();
    assert!((240..260).contains(&(n * 1_000 / table.len())), "{n}");
}

#[test]
fn few_keys_move_when_one_of_a_hundred_leaves() {
    let all = ids(100);
    let (before, after) = (table(&all, &[1; 100]), table(&all[..99], &[1; 99]));
    let moved = before.iter().zip(&after).filter(|(a, b)| **a != 99 && a != b).count();
    assert!(moved * 50 < before.len(), "{moved} of {}", before.len());
}

#[test]
fn table_does_not_depend_on_the_order_of_the_set() {
    let (forward, backward) = (ids(10), ids(10).into_iter().rev().collect::<Vec<_>>());
    let (a, b) = (table(&forward, &[1; 10]), table(&backward, &[1; 10]));
    assert!(a.iter().zip(&b).all(|(a, b)| a + b == 9));
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
