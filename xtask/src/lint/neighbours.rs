//! A program that has our crates as neighbours keeps its own reqwest and rustls.
//!
//! Cargo unifies the features of a build: a feature that we switch on in a shared dependency
//! reaches a program's own use of it. So each program is built by itself, from a lock of its own,
//! and run.

use std::fs;

use crate::command::{Result, cargo, must_succeed, root, succeeds, target};

pub(super) fn check() -> Result<()> {
    let folder = root().join("tests/neighbours");
    let manifest = folder.join("Cargo.toml");
    must_succeed(cargo(["fetch", "--quiet", "--locked", "--manifest-path"]).arg(&manifest))?;
    let mut failed = Vec::new();
    for program in fs::read_dir(&folder)? {
        let program = program?;
        if !program.path().join("Cargo.toml").is_file() {
            continue;
        }
        let name = program.file_name();
        let mut command = cargo(["run", "--quiet", "--offline", "--manifest-path"]);
        command.arg(&manifest).arg("--package").arg(&name);
        command.arg("--target-dir").arg(target().join("neighbours"));
        if !succeeds(&mut command)? {
            failed.push(format!("tests/neighbours/{}", name.display()));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}
