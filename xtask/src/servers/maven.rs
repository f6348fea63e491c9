//! Servers in Java, built by Maven.
//!
//! A project of ours pins their makers' releases.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::table::Server;
use crate::command::{Result, output, root};

/// Builds the project; the folder returned lies in `work` and has the program.
pub(super) fn build(server: &Server, version: &str, work: &Path) -> Result<PathBuf> {
    eprintln!("building {} {version} with Maven, which takes a minute the first time", server.name);
    let (project, built) = (folder(server, version), work.join("built"));
    let mut command = Command::new("mvn");
    command
        .args(["--batch-mode", "--quiet", "package"])
        .arg(format!("-Doutput={}", work.join("output").display()))
        .current_dir(&project);
    output(&mut command)?;
    fs::create_dir(&built)?;
    let jar = format!("{}.jar", server.name);
    fs::copy(work.join("output").join(&jar), built.join(&jar))?;
    fs::copy(project.join(server.program), built.join(server.program))?;
    Ok(built)
}

/// Where the version is pinned.
pub(super) fn folder(server: &Server, version: &str) -> PathBuf {
    root().join("xtask/servers").join(format!("{}-{version}", server.name))
}
