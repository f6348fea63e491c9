//! `xtask run-test`, by which cargo starts each test binary for us.

use std::env;
use std::error::Error;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::packages::{self, AtOnce};

/// Becomes the test binary. Only here is it known which package a binary is of, and so whether its tests
/// may run at once; one `cargo test` for all packages builds their dependencies once.
/// Returns only if that fails.
pub(crate) fn run_test(args: &[&str]) -> Box<dyn Error> {
    let Some((program, rest)) = args.split_first() else {
        return "usage: xtask run-test PROGRAM [ARGS]".into();
    };
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let threads = threads(packages::at_once(Path::new(&package)), rest);
    let error = Command::new(program).args(rest).args(threads).exec();
    format!("cannot run {program}: {error}").into()
}

fn threads(at_once: AtOnce, args: &[&str]) -> &'static [&'static str] {
    let given = args.iter().any(|arg| arg.starts_with("--test-threads"));
    match at_once {
        AtOnce::One if !given => &["--test-threads=1"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_given_by_the_user_win() {
        assert_eq!(threads(AtOnce::One, &["--skip", "x"]), ["--test-threads=1"]);
        assert!(threads(AtOnce::One, &["--test-threads", "4"]).is_empty());
        assert!(threads(AtOnce::Many, &[]).is_empty());
    }
}
