//! cargo-deny at a fixed version, installed under target/tools.

use std::path::PathBuf;
use std::process::Command;

use crate::command::{Result, cargo, must_succeed, root, target};

/// deny.toml lists what is allowed. Advisories need their database from the network: `cargo deny
/// check advisories` is for people to run.
pub(super) fn check() -> Result<()> {
    let program = installed()?;
    // Offline, cargo-deny reads the licences of what cargo has already downloaded.
    must_succeed(&mut cargo(["fetch", "--quiet", "--locked"]))?;
    let mut command = Command::new(program);
    command.args(
        "--offline --all-features --workspace check --hide-inclusion-graph bans licenses sources"
            .split(' '),
    );
    must_succeed(command.current_dir(root()))
}

/// A development build without debug information: less than half the time, and it runs for a
/// second.
fn installed() -> Result<PathBuf> {
    let home = target().join("tools").join(format!("cargo-deny-{VERSION}"));
    let program = home.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    println!("installing cargo-deny {VERSION} under target/tools (a few minutes, once)");
    let mut command = cargo("install --quiet --locked --debug --no-track --force".split(' '));
    command.arg("--root").arg(&home).arg("--target-dir").arg(home.join("build"));
    command.arg(format!("cargo-deny@{VERSION}")).env("CARGO_PROFILE_DEV_DEBUG", "0");
    must_succeed(&mut command)?;
    std::fs::remove_dir_all(home.join("build"))?;
    Ok(program)
}

const VERSION: &str = "0.20.2";
