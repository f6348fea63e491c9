//! `cargo xtask test [NAME…] [--slow] [-- FILTER…]`: all tests, with real servers.

mod binaries;
mod release;
mod runner;

use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use binaries::TestBinary;
use runner::Runner;

use crate::command::{Result, cargo};
use crate::packages::{self, Package};
use crate::protoc;
use crate::servers;

pub(crate) fn main(args: &[&str]) -> Result<ExitCode> {
    let options = Options::parse(args)?;
    let packages = match &*options.names {
        [] => packages::all()?,
        names => names.iter().map(|name| packages::find(name)).collect::<Result<_>>()?,
    };
    protoc::set_up()?;
    let run = Run { options, packages };
    // Fetching waits for the network, and compiling does not.
    let (binaries, servers) = thread::scope(|scope| {
        let servers = scope.spawn(|| run.set_up_servers().map_err(|error| error.to_string()));
        (run.build(), servers.join().expect("setting up servers does not panic"))
    });
    let (Some(binaries), servers) = (binaries?, servers?) else {
        return Ok(ExitCode::FAILURE);
    };
    let (binaries, without_server) = runnable(binaries, &servers);
    let left_out = run.left_out(&binaries)?;
    // Tests wait for servers most of their time, and doc tests for the compiler.
    let (tests_passed, doc_tests) = thread::scope(|scope| {
        let doc_tests = scope.spawn(|| run.has_library().then(|| run.doc_tests().output()));
        (run.tests(binaries, &servers), doc_tests.join().expect("running cargo does not panic"))
    });
    let (tests_passed, doc_tests) = (tests_passed?, doc_tests.transpose()?);
    if let Some(output) = &doc_tests {
        stderr().write_all(&output.stderr)?;
        stdout().write_all(&output.stdout)?;
    }
    let doc_tests_passed = doc_tests.is_none_or(|output| output.status.success());

    for (source, server) in without_server {
        println!("left out {source}: `cargo xtask test {server}` and --slow build its server");
    }
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
    names: Vec<&'a str>,
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
                name if !name.starts_with('-') => options.names.push(name),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }
}

struct Run<'a> {
    options: Options<'a>,
    packages: Vec<Package>,
}

impl Run<'_> {
    /// The variables by which tests learn about servers.
    fn set_up_servers(&self) -> Result<Vec<(String, String)>> {
        let mut names: Vec<&str> = self
            .packages
            .iter()
            .flat_map(|package| packages::needs(&package.folder).servers.names())
            .collect();
        let requested = |name: &&str| self.options.slow || self.options.names.contains(name);
        names.retain(|name| !servers::is_on_request(name) || requested(name));
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
        if self.options.slow && self.packages.iter().any(|it| it.folder == "arithmetic") {
            variables.push(release::arithmetic()?);
        }
        if self.options.slow && self.packages.iter().any(|it| it.folder == "tonic") {
            variables.push(servers::grpcio()?);
        }
        Ok(variables)
    }

    /// The test binaries, or none where cargo has reported an error.
    fn build(&self) -> Result<Option<Vec<TestBinary>>> {
        let args = ["--tests", "--no-run", "--message-format=json-render-diagnostics"];
        let output = self.cargo_test(&args).stderr(Stdio::inherit()).output()?;
        let messages = String::from_utf8_lossy(&output.stdout);
        Ok(output.status.success().then(|| TestBinary::all(&messages)))
    }

    /// Unit and integration tests, those included that plain `cargo test` ignores for want of a
    /// server.
    fn tests(&self, binaries: Vec<TestBinary>, environment: &[(String, String)]) -> Result<bool> {
        let mut args = vec!["--include-ignored"];
        if !self.options.slow {
            args.extend(["--skip", SLOW]);
        }
        args.extend(&self.options.rest);
        let runner = Runner { args, environment };
        // Of one package the output is of interest as it comes.
        if self.options.names.len() == 1 {
            return runner.in_turn(&binaries);
        }
        // A filter of the user's goes to whole binaries.
        let whole = !self.options.rest.is_empty();
        runner.side_by_side(if whole { binaries } else { split(binaries, environment)? })
    }

    /// Apart from the others, because there `ignore` means that an example cannot be compiled.
    fn doc_tests(&self) -> Command {
        let mut command = self.cargo_test(&["--doc", "--no-fail-fast", "--"]);
        command.args(color()).args(&self.options.rest);
        command
    }

    /// The names of the long tests that this run skips.
    fn left_out(&self, binaries: &[TestBinary]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        if !self.options.slow {
            for binary in binaries {
                names.extend(binary.list(SLOW)?);
            }
        }
        Ok(names)
    }

    fn has_library(&self) -> bool {
        self.packages.iter().any(Package::has_library)
    }

    fn cargo_test(&self, args: &[&str]) -> Command {
        let mut command = cargo(["test", "--all-features"]);
        if self.options.names.is_empty() {
            command.arg("--workspace");
        } else {
            command.args(self.packages.iter().flat_map(|it| ["--package", &it.manifest.name]));
        }
        command.args(args);
        if !stdout().is_terminal() {
            command.env("CARGO_TERM_COLOR", "never");
        }
        command
    }
}

/// Those whose servers are there; of the others the source and the server.
fn runnable(
    binaries: Vec<TestBinary>,
    environment: &[(String, String)],
) -> (Vec<TestBinary>, Vec<(String, &'static str)>) {
    let (mut runnable, mut left_out) = (Vec::new(), Vec::new());
    for binary in binaries {
        let missing = packages::server_on_request(&binary.source).filter(|server| {
            let variable = servers::variable(server);
            environment.iter().all(|(name, _)| *name != variable)
        });
        match missing {
            Some(server) => left_out.push((binary.source, server)),
            None => runnable.push(binary),
        }
    }
    (runnable, left_out)
}

/// Binaries whose tests run on one server per version, as one for each version.
fn split(binaries: Vec<TestBinary>, environment: &[(String, String)]) -> Result<Vec<TestBinary>> {
    let mut split = Vec::new();
    for binary in binaries {
        split.extend(binary.by_version(environment)?);
    }
    Ok(split)
}

fn color() -> &'static [&'static str] {
    if stdout().is_terminal() { &[] } else { &["--color", "never"] }
}

/// Tests of more than 30 s, and those that need a namespace of the network, are in a module `slow`,
/// which is in their names, and in no other's.
const SLOW: &str = "slow::";

const USAGE: &str = "usage: cargo xtask test [NAME…] [--slow] [-- FILTER]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_in_any_order() {
        let options = Options::parse(&["--slow", "consul", "--", "seen", "--nocapture"]).unwrap();
        let expected =
            Options { names: vec!["consul"], slow: true, rest: vec!["seen", "--nocapture"] };
        assert_eq!(options, expected);
        assert_eq!(Options::parse(&[]).unwrap(), Options::default());
    }

    #[test]
    fn binary_without_its_server_is_left_out() {
        let message = |source: &str| {
            format!(
                "{{\"manifest_path\":\"/r/Cargo.toml\",\"src_path\":\"{source}\",\
                 \"profile\":{{\"test\":true}},\"executable\":\"/t/a\"}}\n"
            )
        };
        let needs = "crates/kubernetes/tests/conformance.rs";
        let messages = message(needs) + &message("crates/kubernetes/src/lib.rs");
        let (runs, left_out) = runnable(TestBinary::all(&messages), &[]);
        assert_eq!((runs.len(), left_out), (1, vec![(needs.to_owned(), "kubernetes")]));
        let variable = (servers::variable("kubernetes"), "1=/a".to_owned());
        let (runs, left_out) = runnable(TestBinary::all(&messages), &[variable]);
        assert_eq!((runs.len(), left_out.len()), (2, 0));
    }

    #[test]
    fn unknown_option_is_refused_and_names_add_up() {
        assert!(Options::parse(&["--fast"]).is_err());
        assert_eq!(Options::parse(&["consul", "etcd"]).unwrap().names, ["consul", "etcd"]);
    }
}
