//! Dependencies are those we allow, by cargo-deny.

use std::process::Command;

use super::tools;
use crate::command::{Result, cargo, must_succeed, root};

/// deny.toml lists what is allowed. Advisories need their database from the network:
/// `cargo deny check advisories` is for people to run.
pub(super) fn check() -> Result<()> {
    let program = tools::installed("cargo-deny", VERSION)?;
    // Offline, cargo-deny reads the licences of what cargo has already downloaded.
    must_succeed(&mut cargo(["fetch", "--quiet", "--locked"]))?;
    let mut command = Command::new(program);
    command.args(
        "--offline --all-features --workspace check --hide-inclusion-graph bans licenses sources"
            .split(' '),
    );
    must_succeed(command.current_dir(root()))
}

const VERSION: &str = "0.20.2";
