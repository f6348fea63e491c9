//! The conformance suite, on every configured ZooKeeper.

#[path = "zookeeper/support/mod.rs"]
mod support;

use std::process::ExitCode;

use support::ZooKeeperFixture;

fn main() -> ExitCode {
    tower_sd_testkit::run_on("zookeeper", async |binary| ZooKeeperFixture::start(binary).await)
}
