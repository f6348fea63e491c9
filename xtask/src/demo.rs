//! `cargo xtask demo [ARGS]`: the arithmetic example under churn.

use std::process::ExitCode;

use crate::command::{Result, cargo};
use crate::protoc;

/// A development build, because it is ready sooner. Cargo reports what it builds; the demo's exit
/// status is ours.
pub(crate) fn main(args: &[&str]) -> Result<ExitCode> {
    let mut command = cargo(["run", "--package", "arithmetic"]);
    if names_etcd(args) {
        protoc::set_up()?;
        command.args(["--features", "etcd"]);
    }
    let status = command.args(["--", "demo"]).args(args).status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Its client doubles the build, so it is built on demand only.
fn names_etcd(args: &[&str]) -> bool {
    args.iter().any(|arg| arg.trim_start_matches("--registry=").starts_with("etcd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_registry_in_etcd_needs_etcd() {
        assert!(names_etcd(&["--seconds", "4", "--registry", "etcd://127.0.0.1:2379"]));
        assert!(names_etcd(&["--registry=etcds://127.0.0.1"]));
        assert!(!names_etcd(&["--registry", "consul://etcd.example:8500"]));
    }
}
