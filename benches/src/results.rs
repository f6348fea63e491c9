//! The table on the terminal, and the lines in the root's target/bench.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::Serialize;

/// One comparison, where `ratio` is the peer's time in units of ours.
#[derive(Debug, Serialize)]
pub struct Line {
    pub bench: &'static str,
    pub case: &'static str,
    pub n: usize,
    pub threads: usize,
    pub ours_ns: f64,
    pub peer: &'static str,
    pub peer_ns: f64,
    pub ratio: f64,
}

/// One comparison of another kind than a time. `ratio` is ours in the peer's.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub bench: &'static str,
    pub case: &'static str,
    pub metric: &'static str,
    pub ours: f64,
    pub peer: &'static str,
    pub peer_value: f64,
    pub ratio: f64,
}

/// The results of one benchmark.
pub struct Results {
    bench: &'static str,
    file: File,
}

impl Results {
    /// Starts `target/bench/<bench>.jsonl` anew.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn new(bench: &'static str) -> io::Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
        fs::create_dir_all(&folder)?;
        let file = File::create(folder.join(format!("{bench}.jsonl")))?;
        Ok(Self { bench, file })
    }

    /// Compares one of ours with each peer.
    ///
    /// Each has a row of the table and a line of the file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn add(
        &mut self,
        case: &'static str,
        (n, threads): (usize, usize),
        ours_ns: f64,
        peers: &[(&'static str, f64)],
    ) -> io::Result<()> {
        let mut row = format!("{case:<20} n={n:<6} threads={threads} {ours_ns:>10.1} ns ");
        for &(peer, peer_ns) in peers {
            let ratio = round(peer_ns / ours_ns);
            row.push_str(&format!(" | {peer} {peer_ns:.1} ×{ratio}"));
            let (ours_ns, peer_ns) = (round(ours_ns), round(peer_ns));
            let line = Line { bench: self.bench, case, n, threads, ours_ns, peer, peer_ns, ratio };
            writeln!(self.file, "{}", serde_json::to_string(&line)?)?;
        }
        println!("{row}");
        Ok(())
    }

    /// Compares one of our values with a peer's.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn compare(
        &mut self,
        case: &'static str,
        metric: &'static str,
        ours: f64,
        (peer, peer_value): (&'static str, f64),
    ) -> io::Result<()> {
        let ratio = (ours / peer_value * 1000.0).round() / 1000.0;
        println!("{case:<12} {metric:<10} {ours:>10.1} | {peer} {peer_value:>10.1} ×{ratio}");
        let (bench, ours, peer_value) = (self.bench, round(ours), round(peer_value));
        let line = Comparison { bench, case, metric, ours, peer, peer_value, ratio };
        writeln!(self.file, "{}", serde_json::to_string(&line)?)
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
