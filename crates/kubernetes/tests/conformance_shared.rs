//! The shared suite on an API server, all services by one watch of their namespace.

#[path = "support/suite.rs"]
mod suite;

use std::process::ExitCode;

fn main() -> ExitCode {
    suite::run(0)
}
