//! `cargo xtask test [NAME] [--slow] [-- FILTER…]`: everything, with the real servers.

mod release;
mod runner;

use std::env;
use std::io::{IsTerminal, stdout};
use std::process::{Command, ExitCode};

use crate::command::{Result, cargo, output, succeeds};
use crate::packages::{self, Package};
use crate::protoc;
use crate::servers;

pub(crate) use runner::run_test;

pub(crate) fn main(args: &[&str]) -> Result<ExitCode> {
    let options = Options::parse(args)?;
    let packages = match options.name {
        Some(name) => vec![packages::find(name)?],
        None => packages::all()?,
    };
    protoc::set_up()?;
    let mut servers = set_up_servers(&packages)?;
    if options.slow && packages.iter().any(|package| package.folder == "arithmetic") {
        servers.push(release::arithmetic()?);
    }
    let run = Run { options, servers, packages };

    if !succeeds(&mut run.cargo_test(&["--tests", "--no-run"]))? {
        return Ok(ExitCode::FAILURE);
    }
    let left_out = run.left_out()?;
    let tests_passed = succeeds(&mut run.tests()?)?;
    let doc_tests_passed = !run.has_library() || succeeds(&mut run.doc_tests())?;

    if !left_out.is_empty() {
        let list = left_out.join("\n  ");
        println!("left out {} long tests, which --slow runs too:\n  {list}", left_out.len());
    }
    if tests_passed && doc_tests_passed {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("xtask: some tests failed, see above");
    Ok(ExitCode::FAILURE)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Options<'a> {
    name: Option<&'a str>,
    slow: bool,
    /// For the test runner: a filter, `--nocapture` and the like.
    rest: Vec<&'a str>,
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a str]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            match arg {
                "--" => options.rest = args.by_ref().collect(),
                "--slow" => options.slow = true,
                name if options.name.is_none() && !name.starts_with('-') => {
                    options.name = Some(name);
                }
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }
}

/// The variables by which tests learn about servers.
fn set_up_servers(packages: &[Package]) -> Result<Vec<(String, String)>> {
    let mut names: Vec<&str> = packages
        .iter()
        .flat_map(|package| packages::needs(&package.folder).servers.names())
        .collect();
    names.sort_unstable();
    names.dedup();
    let mut variables = Vec::new();
    for name in names {
        let binaries = servers::set_up(name)?;
        for binary in &binaries {
            println!("with {name} {}: {}", binary.version, binary.path.display());
        }
        variables.push(servers::test_environment(name, &binaries));
    }
    Ok(variables)
}

struct Run<'a> {
    options: Options<'a>,
    packages: Vec<Package>,
    servers: Vec<(String, String)>,
}

impl Run<'_> {
    /// Unit and integration tests, those included that plain `cargo test` ignores for want of a server.
    fn tests(&self) -> Result<Command> {
        let runner = env::current_exe()?;
        let config = format!(
            "target.'cfg(all())'.runner=[{:?}, \"run-test\"]",
            runner.display().to_string()
        );
        let mut command =
            self.cargo_test(&["--tests", "--no-fail-fast", "--config", &config, "--"]);
        command.arg("--include-ignored");
        if !self.options.slow {
            command.args(["--skip", SLOW]);
        }
        command.args(color()).args(&self.options.rest);
        Ok(command)
    }

    /// Apart from the others, because there `ignore` means that an example cannot be compiled.
    fn doc_tests(&self) -> Command {
        let mut command = self.cargo_test(&["--doc", "--no-fail-fast", "--"]);
        command.args(color()).args(&self.options.rest);
        command
    }

    /// The names of the long tests that this run skips.
    fn left_out(&self) -> Result<Vec<String>> {
        if self.options.slow {
            return Ok(Vec::new());
        }
        let mut command = self.cargo_test(&["--tests", "--quiet", "--", "--list", SLOW]);
        Ok(listed(&output(&mut command)?))
    }

    fn has_library(&self) -> bool {
        self.packages.iter().any(Package::has_library)
    }

    fn cargo_test(&self, args: &[&str]) -> Command {
        let mut command = cargo(["test", "--all-features"]);
        match (self.options.name, self.packages.as_slice()) {
            (Some(_), [package]) => command.args(["--package", &package.manifest.name]),
            _ => command.arg("--workspace"),
        };
        command.args(args).envs(self.servers.iter().cloned());
        if !stdout().is_terminal() {
            command.env("CARGO_TERM_COLOR", "never");
        }
        command
    }
}

fn color() -> &'static [&'static str] {
    if stdout().is_terminal() { &[] } else { &["--color", "never"] }
}

/// The names in a test binary's `--list`: lines like `module::name: test`.
fn listed(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(str::to_owned).collect()
}

/// Tests of more than 30 s live in a module `slow`, so this is in their names, and in no other's.
const SLOW: &str = "slow::";

const USAGE: &str = "usage: cargo xtask test [NAME] [--slow] [-- FILTER]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_in_any_order() {
        let options = Options::parse(&["--slow", "consul", "--", "seen", "--nocapture"]).unwrap();
        let expected =
            Options { name: Some("consul"), slow: true, rest: vec!["seen", "--nocapture"] };
        assert_eq!(options, expected);
        assert_eq!(Options::parse(&[]).unwrap(), Options::default());
    }

    #[test]
    fn unknown_option_and_second_name_are_refused() {
        assert!(Options::parse(&["--fast"]).is_err());
        assert!(Options::parse(&["consul", "etcd"]).is_err());
    }

    #[test]
    fn only_tests_are_counted_as_left_out() {
        let text = "slow::soak: test\nouter::slow::long: test\n\n2 tests, 0 benchmarks\n";
        assert_eq!(listed(text), ["slow::soak", "outer::slow::long"]);
    }
}
