//! `cargo xtask bench NAME --against REV`: two revisions, run in turn.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use super::{build, results::Runs, with_server};
use crate::command::{Result, must_succeed, output, root, succeeds, target};

/// One of the two revisions.
struct Side {
    label: String,
    program: PathBuf,
    /// Written by the program, in the `target` of the tree that it was built from.
    results: PathBuf,
    runs: Runs,
}

pub(super) fn main(names: &[&String], revision: &str, args: &[&str]) -> Result<ExitCode> {
    let commit = resolve(revision)?;
    let tree = checked_out(&commit)?;
    let mut passed = true;
    for name in names {
        let mut sides = [Side::built(name, &tree, &commit)?, Side::built(name, root(), "now")?];
        for round in 0..ROUNDS {
            eprintln!("{name}: run {} of {ROUNDS}", round + 1);
            // In turn the other one first, so that a machine that slows down is no difference.
            if round % 2 == 1 {
                sides.reverse();
            }
            for side in &mut sides {
                passed &= side.run(name, args)?;
            }
            if round % 2 == 1 {
                sides.reverse();
            }
        }
        let [before, now] = &sides;
        println!("{name}: {} and now, median of {ROUNDS} runs each", before.label);
        print!("{}", before.runs.compared_to(&now.runs));
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Side {
    fn built(name: &str, tree: &Path, label: &str) -> Result<Self> {
        eprintln!("building benchmark {name} of {label} (minutes the first time)");
        let built = build(name, tree)?;
        let folder = target().join("bench/against");
        fs::create_dir_all(&folder)?;
        let program = folder.join(format!("{name}-{label}"));
        fs::copy(&built, &program)?;
        let results = tree.join("target/bench").join(format!("{name}.jsonl"));
        Ok(Self { label: label.to_owned(), program, results, runs: Runs::default() })
    }

    /// Runs it once; false if it missed a bar of its own.
    fn run(&mut self, name: &str, args: &[&str]) -> Result<bool> {
        if self.results.exists() {
            fs::remove_file(&self.results)?;
        }
        let mut command = Command::new(&self.program);
        command.args(args).stdout(Stdio::null());
        with_server(&mut command, name)?;
        let passed = succeeds(&mut command)?;
        let text = fs::read_to_string(&self.results).map_err(|error| {
            format!(
                "{name} of {} has no results in {}: {error}",
                self.label,
                self.results.display()
            )
        })?;
        self.runs.add(&text)?;
        Ok(passed)
    }
}

fn resolve(revision: &str) -> Result<String> {
    let commit = format!("{revision}^{{commit}}");
    let commit = output(&mut git(&["rev-parse", "--verify", "--short=12", &commit]))?;
    Ok(commit.trim().to_owned())
}

/// A working tree of `commit` under target/, which stays there for the next time.
fn checked_out(commit: &str) -> Result<PathBuf> {
    let tree = target().join("bench-against").join(commit);
    if !tree.join("benches/Cargo.toml").is_file() {
        // `cargo clean` leaves git's record of a tree that is gone.
        must_succeed(&mut git(&["worktree", "prune"]))?;
        let mut add = git(&["worktree", "add", "--quiet", "--detach"]);
        must_succeed(add.arg(&tree).arg(commit))?;
    }
    Ok(tree)
}

fn git(args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(args).current_dir(root());
    command
}

/// Odd, so that the median is one of them.
const ROUNDS: usize = 5;
