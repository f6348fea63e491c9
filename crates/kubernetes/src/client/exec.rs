//! Programs that print a bearer token.

use std::{process::Stdio, time::Duration};

#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::{Value, json};
#[cfg(unix)]
use tokio::process::Child;
use tokio::{io::AsyncReadExt, process::Command, time::timeout};
use tower_sd_core::{Error, ErrorKind, Result, Secret};

use crate::{BACKEND, ExecPlugin, error::FOLLOW};

#[derive(Deserialize)]
struct ExecCredential {
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: Option<Secret>,
    client_certificate_data: Option<Secret>,
}

/// Runs the program, whose messages go to the standard error of this process.
///
/// # Cancel safety
///
/// Dropped early, the program is killed; on Unix, with the programs that it has started.
pub(super) async fn run(plugin: &ExecPlugin) -> Result<Secret> {
    let program = plugin.command.display();
    let failed = |kind, what: String| {
        Error::new(kind, BACKEND, FOLLOW).with_message(format!("exec plugin {program}: {what}"))
    };
    let version = match plugin.api_version.as_str() {
        "" => "client.authentication.k8s.io/v1",
        version => version,
    };
    let mut spec = json!({ "interactive": false });
    if let Some(cluster) = plugin.cluster_info.as_deref() {
        spec["cluster"] = serde_json::from_str(cluster).unwrap_or(Value::Null);
    }
    let info = json!({ "apiVersion": version, "kind": "ExecCredential", "spec": spec });
    let mut command = Command::new(&plugin.command);
    #[cfg(unix)]
    command.process_group(0);
    let child = command
        .args(&plugin.args)
        .envs(&plugin.env)
        .env("KUBERNETES_EXEC_INFO", info.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|cause| {
        let hint = plugin.install_hint.as_deref().unwrap_or("is it installed?");
        failed(ErrorKind::Config, format!("cannot be run: {hint}")).with_source(cause)
    })?;
    // Dropped before the program is, whose number is its own until then.
    #[cfg(unix)]
    let mut group = Group::of(&child);
    let printed = async {
        let mut text = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_OUTPUT).read_to_end(&mut text).await?;
        }
        Ok::<_, std::io::Error>((text, child.wait().await?))
    };
    let (text, status) = match timeout(TIMEOUT, printed).await {
        Ok(ended) => ended.map_err(|cause| {
            failed(ErrorKind::Unavailable, "cannot be read".into()).with_source(cause)
        })?,
        Err(_) => return Err(failed(ErrorKind::Timeout, format!("not done within {TIMEOUT:?}"))),
    };
    // What it leaves in the background is its own matter.
    #[cfg(unix)]
    group.leave();
    if !status.success() {
        return Err(failed(ErrorKind::Unavailable, format!("ended with {status}")));
    }
    // What it prints is a secret: errors do not quote it.
    let credential: Option<ExecCredential> = serde_json::from_slice(&text).ok();
    match credential.and_then(|credential| credential.status) {
        Some(Status { token: Some(token), .. }) => Ok(token),
        Some(Status { client_certificate_data: Some(_), .. }) => {
            let what = "it prints a client certificate, and only tokens are supported";
            Err(failed(ErrorKind::Config, what.into()))
        }
        _ => Err(failed(ErrorKind::Protocol, "its output has no token".into())),
    }
}

/// The processes of a program.
///
/// # Drop
///
/// Kills them, unless they were left alone.
#[cfg(unix)]
struct Group(Option<Pid>);

#[cfg(unix)]
impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn leave(&mut self) {
        self.0 = None;
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // They may have ended already.
            kill_process_group(id, Signal::KILL).ok();
        }
    }
}

/// Log-ins at a cloud take some seconds. Below the bound of a follower's read.
const TIMEOUT: Duration = Duration::from_secs(20);
const MAX_OUTPUT: u64 = 1 << 20;
