//! `cargo xtask lint [STEP]`: what a change must pass beside the tests.
//!
//! A step that fails does not hide the others.
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

use std::time::Instant;

use crate::command::{Result, cargo, must_succeed};
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
    let failed: Vec<&str> =
        chosen.into_iter().filter(|step| !step.passes()).map(|step| step.name).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

struct Step {
    name: &'static str,
    proves: &'static str,
    run: fn() -> Result<()>,
}

impl Step {
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
    Step { name: "fmt", proves: "the code is formatted", run: fmt },
    Step { name: "files", proves: "files are short", run: files::check },
    Step {
        name: "circles",
        proves: "files and folders use each other in one direction",
        run: circles::check,
    },
    Step { name: "links", proves: "files named in documents exist", run: links::check },
    Step {
        name: "prose",
        proves: "docs, comments, messages and names of tests are plain technical English",
        run: prose::check,
    },
    Step { name: "unused", proves: "every dependency is used", run: unused::check },
    Step {
        name: "tree",
        proves: "core has no HTTP client, TLS or server in its tree, and a first program few crates",
        run: tree::check,
    },
    Step { name: "clippy", proves: "no warnings, all features on", run: clippy },
    Step {
        name: "features",
        proves: "each package builds by itself, with each feature alone",
        run: features::check,
    },
    Step {
        name: "neighbours",
        proves: "programs beside our crates keep their own reqwest and rustls",
        run: neighbours::check,
    },
    Step { name: "docs", proves: "the documentation builds without warnings", run: docs },
    Step {
        name: "publish",
        proves: "each crate can be published, and nothing else",
        run: publish::check,
    },
    Step { name: "semver", proves: "the API is that of the last release", run: semver::check },
    Step { name: "deny", proves: "dependencies are those we allow", run: deny::check },
];

fn fmt() -> Result<()> {
    must_succeed(&mut cargo(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    must_succeed(&mut cargo(
        "clippy --quiet --workspace --all-targets --all-features -- -D warnings".split(' '),
    ))
}

fn docs() -> Result<()> {
    let mut command = cargo("doc --quiet --workspace --no-deps --all-features".split(' '));
    must_succeed(command.env("RUSTDOCFLAGS", "-D warnings"))
}
