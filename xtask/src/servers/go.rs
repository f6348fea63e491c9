//! Servers that no supported Debian has, built from source by Go.
//!
//! A `go.mod` of ours pins their makers' source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::table::{Go, Server};
use crate::command::{Result, output, root};

/// Builds a package; the folder returned lies in `work` and has the program.
pub(super) fn build(server: &Server, version: &str, source: &Go, work: &Path) -> Result<PathBuf> {
    eprintln!("building {} {version} with Go, which takes minutes the first time", server.name);
    let built = work.join("built");
    fs::create_dir(&built)?;
    let mut command = Command::new("go");
    command
        .args(["build", "-mod=readonly", "-buildvcs=false", "-p", "2"])
        .arg(linker_flags(version, source))
        .arg("-o")
        .arg(built.join(server.program))
        .arg(source.package)
        .current_dir(folder(server, version));
    output(&mut command)?;
    Ok(built)
}

/// No tables for a debugger, which take a quarter of the time.
fn linker_flags(version: &str, source: &Go) -> String {
    let variable = source.version_variable;
    let stamp = variable.map(|variable| format!(" -X {variable}=v{version}")).unwrap_or_default();
    format!("-ldflags=-s -w{stamp}")
}

/// Where the version is pinned.
pub(super) fn folder(server: &Server, version: &str) -> PathBuf {
    root().join("xtask/servers").join(format!("{}-{version}", server.name))
}
