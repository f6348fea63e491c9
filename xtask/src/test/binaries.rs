//! The test binaries that cargo builds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Result, output, root};
use crate::packages::{self, Threads};

/// One test binary, ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TestBinary {
    /// Its source below the root: `crates/core/tests/events.rs`.
    pub(super) source: String,
    package: PathBuf,
    program: PathBuf,
    /// Only tests with this in their names, such as `1.15.4/`.
    filter: Option<String>,
}

impl TestBinary {
    /// Those that a build with `--message-format=json` has reported, in the order of packages'
    /// needs.
    pub(super) fn all(messages: &str) -> Vec<Self> {
        let mut all: Vec<Self> = messages.lines().filter_map(Self::parse).collect();
        let place = |source: &str| LONGEST.iter().position(|it| *it == source);
        all.sort_by_key(|binary| {
            (place(&binary.source).unwrap_or(LONGEST.len()), binary.source.clone())
        });
        all
    }

    /// One line is one object; what is of interest has no escapes in it.
    fn parse(line: &str) -> Option<Self> {
        let (_, profile) = line.split_once("\"profile\":{")?;
        let is_test = profile.split('}').next()?.contains("\"test\":true");
        let source = Path::new(field(line, "src_path")?);
        let found = Self {
            source: source.strip_prefix(root()).unwrap_or(source).display().to_string(),
            package: Path::new(field(line, "manifest_path")?).parent()?.to_owned(),
            program: field(line, "executable")?.into(),
            filter: None,
        };
        is_test.then_some(found)
    }

    pub(super) fn threads(&self) -> Threads {
        packages::threads(&self.package)
    }

    /// The binary in the place and with the variables that cargo would give it.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.filter)
            .args(args)
            .current_dir(&self.package)
            .env("CARGO_MANIFEST_DIR", &self.package);
        if self.threads() == Threads::One && !args.iter().any(|it| it.starts_with("--test-threads"))
        {
            command.arg("--test-threads=1");
        }
        command
    }

    /// One test of it.
    pub(super) fn only(&self, name: &str) -> Command {
        let whole = Self { filter: None, ..self.clone() };
        whole.command(&["--include-ignored", "--exact", name])
    }

    /// One for each version of a server, where all tests are named `VERSION/…`: each of them starts
    /// a server that no other one uses.
    pub(super) fn by_version(self, environment: &[(String, String)]) -> Result<Vec<Self>> {
        let mut list = self.command(&["--list"]);
        let names = listed(&output(list.envs(environment.iter().cloned()))?);
        let Some(versions) = versions(&names) else {
            return Ok(vec![self]);
        };
        let of = |version: String| Self {
            source: format!("{} {version}", self.source),
            filter: Some(format!("{version}/")),
            ..self.clone()
        };
        Ok(versions.into_iter().map(of).collect())
    }

    /// The names of its tests that have `part` in them.
    pub(super) fn list(&self, part: &str) -> Result<Vec<String>> {
        Ok(listed(&output(&mut self.command(&["--list", part]))?))
    }
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = line.split_once(&format!("\"{name}\":\""))?;
    Some(value.split_once('"')?.0)
}

/// The names in a test binary's `--list`: lines like `module::name: test`.
fn listed(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(str::to_owned).collect()
}

/// The different parts before a slash; none if a test is named otherwise.
fn versions(names: &[String]) -> Option<BTreeSet<String>> {
    let versions = names.iter().map(|name| Some(name.split_once('/')?.0.to_owned()));
    versions.collect::<Option<BTreeSet<_>>>().filter(|versions| !versions.is_empty())
}

/// By the times that a run of all prints; the others take less than two minutes each.
const LONGEST: &[&str] = &[
    "crates/etcd/tests/etcd/main.rs",
    "crates/etcd/tests/conformance.rs",
    "crates/consul/tests/conformance.rs",
    "crates/consul/tests/agents/main.rs",
    "crates/dns/tests/conformance.rs",
    "tests/http/main.rs",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_are_read_from_messages_of_cargo() {
        let line = |test: bool, name: &str| {
            format!(
                "{{\"reason\":\"compiler-artifact\",\"manifest_path\":\"/r/crates/{name}/Cargo.toml\",\
                 \"target\":{{\"kind\":[\"lib\"],\"src_path\":\"/r/crates/{name}/src/lib.rs\",\"test\":true}},\
                 \"profile\":{{\"opt_level\":\"0\",\"test\":{test}}},\"executable\":\"/t/{name}-1\"}}"
            )
        };
        let library = line(true, "x").replace("\"/t/x-1\"", "null");
        let text = [line(true, "x"), line(false, "y"), library, "{}".to_owned()].join("\n");
        let expected = TestBinary {
            source: "/r/crates/x/src/lib.rs".to_owned(),
            package: "/r/crates/x".into(),
            program: "/t/x-1".into(),
            filter: None,
        };
        assert_eq!(TestBinary::all(&text), [expected]);
    }

    #[test]
    fn tests_run_one_by_one_unless_threads_are_given() {
        let binary = |package: &str| TestBinary {
            source: String::new(),
            package: package.into(),
            program: "/t".into(),
            filter: None,
        };
        let args = |package, args: &[&str]| {
            let command = binary(package).command(args);
            command.get_args().map(|it| it.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(args("crates/dns", &["--skip", "x"]), ["--skip", "x", "--test-threads=1"]);
        assert_eq!(args("crates/dns", &["--test-threads=4"]), ["--test-threads=4"]);
        assert_eq!(args("crates/core", &[]), [""; 0]);
    }

    #[test]
    fn only_tests_are_listed() {
        let text = "slow::soak: test\nouter::slow::long: test\n\n2 tests, 0 benchmarks\n";
        assert_eq!(listed(text), ["slow::soak", "outer::slow::long"]);
    }

    #[test]
    fn versions_are_those_that_all_names_begin_with() {
        let names = |names: &[&str]| names.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
        let found = versions(&names(&["3.5/one", "3.5/two", "3.4/one"])).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["3.4", "3.5"]);
        assert_eq!(versions(&names(&["3.5/one", "other"])), None);
        assert_eq!(versions(&[]), None);
    }
}
