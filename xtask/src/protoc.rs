//! The protobuf compiler that etcd-client's build script runs.

use std::env;
use std::process::{Command, Stdio};

use crate::command::{Result, root, succeeds, target};

/// Installs it before cargo runs, which would hide the output of a build script.
pub(crate) fn set_up() -> Result<()> {
    let script = root().join("xtask/protoc");
    let given_by_user = env::var_os("PROTOC").is_some_and(|protoc| script != *protoc);
    if given_by_user || target().join("protoc/bin/protox").is_file() {
        return Ok(());
    }
    let mut command = Command::new(script);
    if succeeds(command.arg("--help").stdout(Stdio::null()))? {
        return Ok(());
    }
    Err("cannot install the protobuf compiler protox; PROTOC=/path/to/protoc names one of your own"
        .into())
}
