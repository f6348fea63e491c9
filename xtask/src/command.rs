//! Running other programs, and failing with a sentence.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Errors are sentences for a person; no caller distinguishes them.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ is a folder of the repository")
}

/// Everything that xtask fetches or writes lies under here.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// A cargo that sees the environment of a shell, not that of a program under `cargo run`: build
/// scripts that watch such variables (ring's does) would be run again at every change of hands.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, value) in env::vars_os() {
        let of_cargo_run = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        let of_our_config = name == "PROTOC" && Path::new(&value) == root().join("xtask/protoc");
        if of_cargo_run || of_our_config || name == "OUT_DIR" {
            command.env_remove(name);
        }
    }
    command.args(args).current_dir(root());
    command
}

/// Runs a program on our own stdin, stdout and stderr; true when it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().map_err(|error| not_run(command, &error))?;
    Ok(status.success())
}

/// Like [`succeeds`], for a caller that has nothing to add to the program's output.
pub(crate) fn must_succeed(command: &mut Command) -> Result<()> {
    if succeeds(command)? {
        return Ok(());
    }
    let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    Err(format!("failed: {} {}", command.get_program().display(), arguments.join(" ")).into())
}

/// Runs a program to its end and returns its stdout; its stderr goes into the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| not_run(command, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{} failed ({}): {}",
        command.get_program().display(),
        output.status,
        stderr.trim()
    )
    .into())
}

fn not_run(command: &Command, error: &io::Error) -> String {
    format!("cannot run {}: {error}", command.get_program().display())
}
