use std::cmp::Ordering;

use tower_sd_core::Instance;

/// What is different between two lists that are sorted by id.
#[derive(Debug, Default)]
pub(super) struct Diff<'a> {
    /// New ones, and those whose content has changed.
    pub(super) put: Vec<&'a Instance>,
    /// Those that are gone, as they were.
    pub(super) gone: Vec<&'a Instance>,
}

/// Walks both lists side by side; equal pointers cost nothing more.
pub(super) fn diff<'a>(old: &'a [Instance], new: &'a [Instance]) -> Diff<'a> {
    let mut diff = Diff::default();
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (Some(was), Some(is)) if was.ptr_eq(is) => {
                old.next();
                new.next();
            }
            (Some(was), Some(is)) => match was.id().cmp(is.id()) {
                Ordering::Less => diff.gone.extend(old.next()),
                Ordering::Greater => diff.put.extend(new.next()),
                Ordering::Equal => {
                    let was = old.next();
                    diff.put.extend(new.next().filter(|is| was != Some(is)));
                }
            },
            (Some(_), None) => diff.gone.extend(old.next()),
            (None, Some(_)) => diff.put.extend(new.next()),
            (None, None) => return diff,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(instances: &[&Instance]) -> Vec<String> {
        instances.iter().map(|instance| instance.id().to_string()).collect()
    }

    #[test]
    fn only_what_is_different_is_named() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|host| Instance::new(host, 1));
        let (heavy_c, same_b) = (c.clone().with_weight(7), Instance::new("b", 1));
        let (old, new) = ([a, b, c], [same_b, heavy_c, d]);
        let diff = diff(&old, &new);
        assert_eq!(ids(&diff.put), ["c:1", "d:1"]);
        assert_eq!(ids(&diff.gone), ["a:1"]);
        assert_eq!(diff.put[0].weight(), 7);
    }

    #[test]
    fn applying_the_difference_gives_the_new_list() {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut list = || {
            let mut list = Vec::new();
            for port in 0..40 {
                if rng.bool() {
                    list.push(Instance::new("h", 1_000 + port).with_weight(rng.u32(..2)));
                }
            }
            list.sort_by(|a, b| a.id().cmp(b.id()));
            list
        };
        for _ in 0..200 {
            let (old, new) = (list(), list());
            let diff = diff(&old, &new);
            let mut applied: Vec<_> = old
                .iter()
                .filter(|was| !diff.gone.contains(was))
                .filter(|was| !diff.put.iter().any(|put| put.id() == was.id()))
                .chain(diff.put.iter().copied())
                .cloned()
                .collect();
            applied.sort_by(|a, b| a.id().cmp(b.id()));
            assert_eq!(applied, new);
        }
    }
}
