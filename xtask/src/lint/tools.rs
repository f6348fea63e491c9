//! Programs of fixed versions, installed under target/tools.

use std::fs;
use std::path::PathBuf;

use crate::command::{Result, cargo, must_succeed, target};

/// The program, installed on first use.
///
/// A development build without debug information: less than half the time, and it runs for a
/// second.
pub(super) fn installed(name: &str, version: &str) -> Result<PathBuf> {
    let home = target().join("tools").join(format!("{name}-{version}"));
    let program = home.join("bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    println!("installing {name} {version} under target/tools (a few minutes, once)");
    let mut command = cargo("install --quiet --locked --debug --no-track --force".split(' '));
    command.arg("--root").arg(&home).arg("--target-dir").arg(home.join("build"));
    command.arg(format!("{name}@{version}")).env("CARGO_PROFILE_DEV_DEBUG", "0");
    must_succeed(&mut command)?;
    fs::remove_dir_all(home.join("build"))?;
    Ok(program)
}
