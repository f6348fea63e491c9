//! `cargo xtask demo`: the arithmetic example under churn.

use std::process::ExitCode;

use crate::command::{Result, cargo};

/// A development build: it is ready sooner, and the demo is about correctness.
pub(crate) fn main(args: &[&str]) -> Result<ExitCode> {
    eprintln!("building the arithmetic example (about a minute the first time)");
    let mut command = cargo(["build", "--package", "arithmetic"]);
    if !crate::command::succeeds(&mut command)? {
        return Ok(ExitCode::FAILURE);
    }
    let mut command = cargo(["run", "--quiet", "--package", "arithmetic", "--", "demo"]);
    let status = command.args(args).status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
