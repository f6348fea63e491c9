//! `cargo xtask demo [ARGS]`: the arithmetic example under churn.

use std::process::ExitCode;

use crate::command::{Result, cargo};

/// A development build, because it is ready sooner. Cargo says what it builds; the demo's exit status is ours.
pub(crate) fn main(args: &[&str]) -> Result<ExitCode> {
    let mut command = cargo(["run", "--package", "arithmetic", "--", "demo"]);
    let status = command.args(args).status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
