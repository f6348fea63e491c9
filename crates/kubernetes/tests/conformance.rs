//! The shared suite on an API server, each service watched by itself.

#[path = "support/suite.rs"]
mod suite;

use std::process::ExitCode;

fn main() -> ExitCode {
    suite::run(32)
}
