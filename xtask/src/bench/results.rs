//! The results of several runs of one benchmark, and their comparison.

use std::fmt::Write;

use crate::command::Result;

/// The values of each row, one of each run.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<Row>);

#[derive(Debug)]
struct Row {
    name: String,
    values: Vec<f64>,
    /// Each value as a multiple of the geometric mean of the peers in the same run.
    ///
    /// The clock of a shared machine changes by a factor of two from one run to the next; the peers
    /// run in turn with ours, within milliseconds, and are the same in both revisions.
    to_peers: Vec<f64>,
}

impl Runs {
    /// Adds one run: the lines of a results file, one for each peer of a case.
    pub(super) fn add(&mut self, text: &str) -> Result<()> {
        let mut run: Vec<(String, f64, Vec<f64>)> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (name, value, peer) =
                row(line).ok_or_else(|| format!("not a line of results: {line}"))?;
            match run.iter_mut().find(|(known, ..)| *known == name) {
                Some((.., peers)) => peers.push(peer),
                None => run.push((name, value, vec![peer])),
            }
        }
        for (name, value, peers) in run {
            let row = self.row(&name);
            row.values.push(value);
            row.to_peers.push(value / geometric_mean(&peers));
        }
        Ok(())
    }

    fn row(&mut self, name: &str) -> &mut Row {
        let at = self.0.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.0.push(Row { name: name.to_owned(), values: Vec::new(), to_peers: Vec::new() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// A table of the medians; the ratios are `now` in `self`, the last of them beside the peers.
    pub(super) fn compared_to(&self, now: &Self) -> String {
        let mut table = String::new();
        for Row { name, values, to_peers } in &self.0 {
            let line = match now.0.iter().find(|row| row.name == *name) {
                None => format!("{name:<44} only before"),
                Some(new) => {
                    let (before, after) = (median(values), median(&new.values));
                    let relative = median(&new.to_peers) / median(to_peers);
                    let mark = if (relative - 1.0).abs() > BAR { "  more than 5 %" } else { "" };
                    let ratio = after / before;
                    format!(
                        "{name:<44} {before:>12.1} {after:>12.1}  ×{ratio:.3}  beside peers \
                         ×{relative:.3}{mark}"
                    )
                }
            };
            writeln!(table, "{line}").expect("a String takes everything");
        }
        table
    }
}

/// The name of a line, our value, and the peer's.
fn row(line: &str) -> Option<(String, f64, f64)> {
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
    Some((name, ours.parse().ok()?, peer.parse().ok()?))
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

fn geometric_mean(values: &[f64]) -> f64 {
    let (sum, n) = values.iter().fold((0.0, 0.0), |(sum, n), value| (sum + value.ln(), n + 1.0));
    (sum / n).exp()
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
        let name = "random n=10 threads=1, ns".to_owned();
        assert_eq!(row(&time(15.25, "a,b", 20.0)), Some((name, 15.25, 20.0)));
        let line = r#"{"bench":"calls","case":"h1","metric":"p99","ours":1.5,"peer":"x","peer_value":2.0,"ratio":0.75}"#;
        assert_eq!(row(line), Some(("h1 p99".to_owned(), 1.5, 2.0)));
        for line in ["", "{}", "[1]", r#"{"case":"a","metric":"b","ours":"c","peer":"d"}"#] {
            assert_eq!(row(line), None, "{line}");
        }
    }

    #[test]
    fn medians_are_compared_beside_their_peers() {
        let (mut before, mut now) = (Runs::default(), Runs::default());
        // The second revision always met the machine at half its speed.
        for (was, is) in [(10.0, 24.0), (11.0, 22.0), (900.0, 26.0)] {
            before.add(&[time(was, "a", 20.0), time(was, "b", 30.0)].join("\n")).expect("lines");
            now.add(&[time(is, "a", 40.0), time(is, "b", 60.0)].join("\n")).expect("lines");
        }
        let table = before.compared_to(&now);
        for part in ["11.0", "24.0", "×2.182", "beside peers ×1.091  more than 5 %"] {
            assert!(table.contains(part), "{part} in {table}");
        }
        assert!(before.compared_to(&Runs::default()).contains("only before"));
        before.add("{}").expect_err("no results");
    }
}
