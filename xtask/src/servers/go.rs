//! Servers that no supported Debian has, built from source by Go.
//!
//! A `go.mod` of ours pins their makers' source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::table::Server;
use crate::command::{Result, output, root};

/// Builds a package; the folder returned lies in `work` and has the program.
pub(super) fn build(server: &Server, version: &str, package: &str, work: &Path) -> Result<PathBuf> {
    eprintln!("building {} {version} with Go, which takes minutes the first time", server.name);
    let built = work.join("built");
    fs::create_dir(&built)?;
    let mut command = Command::new("go");
    command
        .args(["build", "-mod=readonly", "-buildvcs=false", "-p", "2", "-ldflags=-s -w", "-o"])
        .arg(built.join(server.program))
        .arg(package)
        .current_dir(folder(server, version));
    output(&mut command)?;
    Ok(built)
}

/// Where the version is pinned.
pub(super) fn folder(server: &Server, version: &str) -> PathBuf {
    root().join("xtask/servers").join(format!("{}-{version}", server.name))
}
