//! The demo on registries that are compiled in on request.

use std::process::Command;

use crate::{fleet::program, registry::Registry};

/// Runs the demo for so many seconds, and fails when a request has failed.
pub(crate) fn tell(registry: &Registry, seconds: u32) {
    let (url, seconds) = (registry.url(), seconds.to_string());
    let args = ["demo", "--registry", &url, "--seconds", &seconds];
    let output = Command::new(program()).args(args).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{output:?}");
    assert!(text.contains(" retries, 0 failed\n"), "{text}");
    // One of the servers was killed in the middle of its requests.
    assert!(!text.contains(" 0 retries"), "{text}");
    let picks = text.lines().last().unwrap_or_default();
    for server in ["server-1", "server-2", "server-3", "server-4", "server-5"] {
        assert!(picks.contains(server) && !picks.contains(&format!("{server} 0")), "{text}");
    }
}
