//! The public API since the last release, by cargo-semver-checks.

use std::process::Command;

use super::tools;
use crate::command::{Result, must_succeed, output, root};

/// Without a tag nothing is released, and so nothing is compared or installed.
pub(super) fn check() -> Result<()> {
    let mut tags = Command::new("git");
    tags.args(["tag", "--list", "v*", "--sort=-version:refname"]).current_dir(root());
    let tags = output(&mut tags)?;
    let Some(last) = tags.lines().next() else {
        println!("no release yet: there is no tag v*");
        return Ok(());
    };
    let program = tools::installed("cargo-semver-checks", VERSION)?;
    let mut command = Command::new(program);
    command.args(["semver-checks", "--workspace", "--all-features", "--baseline-rev", last]);
    must_succeed(command.current_dir(root()))
}

/// The first version for Rust 1.88.
const VERSION: &str = "0.44.0";
