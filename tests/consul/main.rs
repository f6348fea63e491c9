//! Traffic through servers that real Consul agents list, while those are disturbed.
#![expect(clippy::future_not_send, reason = "each test runs on one thread")]

mod agent;
mod cluster;
mod traffic;

use tower_sd_testkit::servers::{ServerBinary, configured};

/// Runs a test on every version there is, one after the other.
async fn on_every_version(test: impl AsyncFn(ServerBinary)) {
    for binary in configured("consul").unwrap_or_else(|missing| panic!("{missing}")) {
        say(&format!("using consul v{}", binary.version));
        Box::pin(test(binary)).await;
    }
}

#[expect(clippy::print_stdout, reason = "which server a failed test ran on, and what was measured")]
fn say(text: &str) {
    println!("{text}");
}
