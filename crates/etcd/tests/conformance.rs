//! The conformance suite, on every configured etcd.

#[path = "etcd/support/mod.rs"]
mod support;

use std::process::ExitCode;

use support::EtcdFixture;

fn main() -> ExitCode {
    tower_sd_testkit::run_on("etcd", async |binary| EtcdFixture::start(binary).await)
}
