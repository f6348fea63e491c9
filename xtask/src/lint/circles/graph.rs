//! A directed graph of names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug, Default)]
pub(super) struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    pub(super) fn add(&mut self, from: &str, to: &str) {
        if from != to {
            self.0.entry(from.to_owned()).or_default().insert(to.to_owned());
        }
    }

    /// One shortest circle for each group of names that reach each other.
    pub(super) fn circles(&self) -> Vec<String> {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut circles = Vec::new();
        for name in self.0.keys() {
            if seen.contains(name.as_str()) {
                continue;
            }
            if let Some(circle) = self.circle(name) {
                seen.extend(&circle);
                circles.push(circle.join(" → "));
            }
        }
        circles
    }

    /// The shortest way from a name back to itself.
    fn circle<'a>(&'a self, start: &'a str) -> Option<Vec<&'a str>> {
        let mut before: BTreeMap<&str, &str> = BTreeMap::new();
        let mut next = VecDeque::from([start]);
        while let Some(name) = next.pop_front() {
            for used in self.0.get(name).into_iter().flatten() {
                if used == start {
                    let mut circle = vec![start, name];
                    let mut at = name;
                    while at != start {
                        at = before[at];
                        circle.push(at);
                    }
                    circle.reverse();
                    return Some(if name == start { vec![start, start] } else { circle });
                }
                if !before.contains_key(used.as_str()) {
                    before.insert(used, name);
                    next.push_back(used);
                }
            }
        }
        None
    }
}
