//! Servers in Java, built by Maven.
//!
//! A project of ours pins their makers' releases.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::table::Server;
use crate::command::{Result, output, root};

/// Builds the project; the folder returned lies in `work` and has the program.
///
/// The program is a script of the project's, which assembles what it starts.
pub(super) fn build(server: &Server, version: &str, work: &Path) -> Result<PathBuf> {
    eprintln!("building {} {version} with Maven, which takes a minute the first time", server.name);
    let (project, built) = (folder(server, version), work.join("built"));
    let maven = work.join("output");
    let mut command = Command::new("mvn");
    command
        .args(["--batch-mode", "--quiet", "package"])
        .arg(format!("-Doutput={}", maven.display()))
        .current_dir(&project);
    output(&mut command)?;
    fs::create_dir(&built)?;
    let program = built.join(server.program);
    fs::copy(project.join(server.program), &program)?;
    output(Command::new(program).arg("--assemble").arg(maven))?;
    Ok(built)
}

/// Where the version is pinned.
pub(super) fn folder(server: &Server, version: &str) -> PathBuf {
    root().join("xtask/servers").join(format!("{}-{version}", server.name))
}
