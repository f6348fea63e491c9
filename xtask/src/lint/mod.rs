//! `cargo xtask lint [STEP]`: what a change must pass beside the tests.
//!
//! A step that fails does not hide the others. Those that compile into a folder of their own run
//! beside the others: one build alone seldom keeps two cores busy.
#![expect(
    clippy::disallowed_types,
    reason = "the time that a step took is for people to read; nothing depends on it"
)]

mod circles;
mod deny;
mod features;
mod files;
mod links;
mod neighbours;
mod prose;
mod publish;
mod semver;
mod tools;
mod tree;
mod unused;

use std::process::Stdio;
use std::thread;
use std::time::Instant;

use crate::command::{Result, cargo, must_succeed, root};
use crate::protoc;

pub(crate) fn main(args: &[&str]) -> Result<()> {
    if let ["prose", "--count", of @ ..] = args {
        return prose::count(of.first().copied());
    }
    let chosen: Vec<&Step> = match args {
        [] => STEPS.iter().collect(),
        [name] => STEPS.iter().filter(|step| step.name == *name).collect(),
        _ => Vec::new(),
    };
    if chosen.is_empty() {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        return Err(format!("usage: cargo xtask lint [STEP], of {}", names.join(", ")).into());
    }
    protoc::set_up()?;
    let (beside, in_turn): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|it| it.own_target);
    let failed = thread::scope(|scope| {
        let beside = scope.spawn(|| failed(&beside));
        let mut failed = failed(&in_turn);
        failed.extend(beside.join().expect("a step does not panic"));
        failed
    });
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

struct Step {
    name: &'static str,
    proves: &'static str,
    run: fn() -> Result<()>,
    own_target: bool,
}

fn failed(steps: &[&Step]) -> Vec<&'static str> {
    steps.iter().filter(|step| !step.passes()).map(|step| step.name).collect()
}

impl Step {
    const fn new(name: &'static str, proves: &'static str, run: fn() -> Result<()>) -> Self {
        Self { name, proves, run, own_target: false }
    }

    const fn own_target(self) -> Self {
        Self { own_target: true, ..self }
    }

    fn passes(&self) -> bool {
        println!("lint {}: {}", self.name, self.proves);
        let start = Instant::now();
        let result = (self.run)();
        let seconds = start.elapsed().as_secs();
        match &result {
            Ok(()) => println!("lint {}: ok ({seconds} s)", self.name),
            Err(error) => println!("lint {}: FAILED ({seconds} s)\n{error}", self.name),
        }
        result.is_ok()
    }
}

/// The quick ones first.
const STEPS: &[Step] = &[
    Step::new("fmt", "the code is formatted", fmt),
    Step::new("files", "files are short", files::check),
    Step::new("circles", "files and folders use each other in one direction", circles::check),
    Step::new("links", "files named in documents exist", links::check),
    Step::new(
        "prose",
        "docs, comments, messages and names of tests are plain technical English",
        prose::check,
    ),
    Step::new("unused", "every dependency is used", unused::check),
    Step::new(
        "tree",
        "core has no HTTP client, TLS or server in its tree, and a first program few crates",
        tree::check,
    ),
    Step::new("locks", "the locks beside the main one agree with their manifests", locks),
    Step::new("clippy", "no warnings, all features on", clippy),
    Step::new(
        "features",
        "each package builds by itself, with each feature alone",
        features::check,
    ),
    Step::new(
        "neighbours",
        "programs beside our crates keep their own reqwest and rustls",
        neighbours::check,
    )
    .own_target(),
    Step::new("docs", "the documentation builds without warnings, with and without features", docs),
    Step::new("publish", "each crate can be published, and nothing else", publish::check),
    Step::new("semver", "the API is that of the last release", semver::check),
    Step::new("deny", "dependencies are those we allow", deny::check).own_target(),
];

fn fmt() -> Result<()> {
    must_succeed(&mut cargo(["fmt", "--all", "--check"]))
}

/// Workspaces of their own: the commands of this one do not write their locks.
fn locks() -> Result<()> {
    for folder in ["benches", "benches/quality", "tests/neighbours"] {
        let mut command = cargo(["metadata", "--locked", "--format-version=1", "--manifest-path"]);
        command.arg(root().join(folder).join("Cargo.toml")).stdout(Stdio::null());
        must_succeed(&mut command)?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    must_succeed(&mut cargo(
        "clippy --quiet --workspace --all-targets --all-features -- -D warnings".split(' '),
    ))
}

fn docs() -> Result<()> {
    for features in ["--no-default-features", "--all-features"] {
        let mut command = cargo(["doc", "--quiet", "--workspace", "--no-deps", features]);
        must_succeed(command.env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    Ok(())
}
