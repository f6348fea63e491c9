//! `cargo xtask demo [ARGS]`: the arithmetic example under churn.

use std::process::ExitCode;

use crate::command::{Result, cargo};
use crate::protoc;

/// A development build, because it is ready sooner. Cargo reports what it builds; the demo's exit
/// status is ours.
pub(crate) fn main(args: &[&str]) -> Result<ExitCode> {
    let mut command = cargo(["run", "--package", "arithmetic"]);
    if let Some(feature) = feature(args) {
        if feature == "etcd" {
            protoc::set_up()?;
        }
        command.args(["--features", feature]);
    }
    let status = command.args(["--", "demo"]).args(args).status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The feature of the registry that is named, unless it is always built.
fn feature(args: &[&str]) -> Option<&'static str> {
    let names = |feature: &&str| {
        args.iter().any(|arg| arg.trim_start_matches("--registry=").starts_with(feature))
    };
    ["etcd", "eureka", "zookeeper"].into_iter().find(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_is_that_of_the_registry() {
        assert_eq!(feature(&["--seconds", "4", "--registry", "etcd://127.0.0.1:1"]), Some("etcd"));
        assert_eq!(feature(&["--registry=etcds://127.0.0.1"]), Some("etcd"));
        assert_eq!(feature(&["--registry=eureka://127.0.0.1/eureka"]), Some("eureka"));
        assert_eq!(feature(&["--registry", "zookeeper://127.0.0.1:1"]), Some("zookeeper"));
        assert_eq!(feature(&["--registry", "consul://etcd.example:8500"]), None);
    }
}
