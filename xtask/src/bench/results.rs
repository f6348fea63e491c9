//! The results of several runs of one benchmark, and their comparison.

use std::fmt::Write;

use crate::command::Result;

/// The values of each row, one of each run.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<Row>);

#[derive(Debug)]
struct Row {
    name: String,
    /// A peer is the same in both revisions: its ratio shows the noise.
    is_peer: bool,
    values: Vec<f64>,
}

impl Runs {
    /// Adds one run: the lines of a results file.
    pub(super) fn add(&mut self, text: &str) -> Result<()> {
        let mut seen = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let rows = rows(line).ok_or_else(|| format!("not a line of results: {line}"))?;
            for (name, is_peer, value) in rows {
                // A case has a line for each of its peers.
                if !seen.contains(&name) {
                    self.row(&name, is_peer).values.push(value);
                    seen.push(name);
                }
            }
        }
        Ok(())
    }

    fn row(&mut self, name: &str, is_peer: bool) -> &mut Row {
        let at = self.0.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.0.push(Row { name: name.to_owned(), is_peer, values: Vec::new() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// A table of the medians; the ratio is `now` in `self`.
    pub(super) fn compared_to(&self, now: &Self) -> String {
        let (mut table, mut of_peers) = (String::new(), Vec::new());
        for Row { name, is_peer, values } in &self.0 {
            let new = now.0.iter().find(|row| row.name == *name).map(|row| median(&row.values));
            let (before, Some(new)) = (median(values), new) else {
                writeln!(table, "{name:<44} only before").expect("a String takes everything");
                continue;
            };
            let ratio = new / before;
            if *is_peer {
                of_peers.push(ratio);
                continue;
            }
            let mark = if (ratio - 1.0).abs() > BAR { "  more than 5 %" } else { "" };
            writeln!(table, "{name:<44} {before:>12.1} {new:>12.1}  ×{ratio:.3}{mark}")
                .expect("a String takes everything");
        }
        if !of_peers.is_empty() {
            of_peers.sort_by(f64::total_cmp);
            let (least, most) = (of_peers[0], of_peers[of_peers.len() - 1]);
            let middle = median(&of_peers);
            writeln!(
                table,
                "peers, the same on both sides: ×{middle:.3} (×{least:.3} to ×{most:.3})"
            )
            .expect("a String takes everything");
        }
        table
    }
}

/// The rows of one line: ours, and the peer's.
fn rows(line: &str) -> Option<[(String, bool, f64); 2]> {
    let fields = fields(line)?;
    let get = |wanted| fields.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
    let case = get("case")?;
    let (name, ours, peer) = match get("metric") {
        Some(metric) => (format!("{case} {metric}"), get("ours")?, get("peer_value")?),
        None => {
            let (n, threads) = (get("n")?, get("threads")?);
            let name = format!("{case} n={n} threads={threads}, ns");
            (name, get("ours_ns")?, get("peer_ns")?)
        }
    };
    let of_peer = format!("{name}: {}", get("peer")?);
    Some([(name, false, ours.parse().ok()?), (of_peer, true, peer.parse().ok()?)])
}

/// The fields of a flat JSON object without escapes, which is all that the benchmarks write.
fn fields(line: &str) -> Option<Vec<(&str, &str)>> {
    let mut rest = line.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.strip_prefix('"')?.split_once('"')?;
        let after = after.strip_prefix(':')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(text) => text.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        fields.push((key, value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(fields)
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The bar for one thread and up to 1 000 instances; others are marked for information.
const BAR: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    fn time(ours: f64, peer: &str, of_peer: f64) -> String {
        format!(
            r#"{{"bench":"pick","case":"random","n":10,"threads":1,"ours_ns":{ours},"peer":"{peer}","peer_ns":{of_peer},"ratio":1.0}}"#
        )
    }

    #[test]
    fn fields_are_read_from_both_kinds_of_lines() {
        let rows_of = |line: &str| rows(line).expect("a line of results").map(|row| (row.0, row.2));
        let [ours, peer] = rows_of(&time(15.25, "a,b", 20.0));
        assert_eq!(ours, ("random n=10 threads=1, ns".to_owned(), 15.25));
        assert_eq!(peer, ("random n=10 threads=1, ns: a,b".to_owned(), 20.0));
        let line = r#"{"bench":"calls","case":"h1","metric":"p99","ours":1.5,"peer":"x","peer_value":2.0,"ratio":0.75}"#;
        let [ours, peer] = rows_of(line);
        assert_eq!((ours, peer), (("h1 p99".to_owned(), 1.5), ("h1 p99: x".to_owned(), 2.0)));
        for line in ["", "{}", "[1]", r#"{"case":"a","metric":"b","ours":"c","peer":"d"}"#] {
            assert_eq!(rows(line), None, "{line}");
        }
    }

    #[test]
    fn medians_are_compared_and_peers_show_the_noise() {
        let (mut before, mut now) = (Runs::default(), Runs::default());
        for (was, is) in [(10.0, 12.0), (11.0, 11.0), (900.0, 13.0)] {
            let lines = [time(was, "a", 20.0), time(was, "b", 30.0)].join("\n");
            before.add(&lines).expect("well formed");
            let lines = [time(is, "a", 20.0), time(is, "b", 33.0)].join("\n");
            now.add(&lines).expect("well formed");
        }
        let table = before.compared_to(&now);
        let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let [ours, peers] = &lines[..] else { panic!("{table}") };
        let ours: &Vec<_> = ours;
        assert_eq!(ours[4..], ["11.0", "12.0", "×1.091", "more", "than", "5", "%"], "{table}");
        assert!(peers.contains(&"×1.100"), "{table}");
        assert!(before.compared_to(&Runs::default()).contains("only before"));
        before.add("{}").expect_err("no results");
    }
}
