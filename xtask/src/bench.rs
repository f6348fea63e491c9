//! `cargo xtask bench [NAME] [--against REV] [-- ARGS]`: benchmarks with peers.

mod against;
mod results;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::command::{Result, cargo, root, succeeds, target};
use crate::{protoc, servers};

/// The parts of the command line.
#[derive(Debug, Eq, PartialEq)]
struct Args<'a> {
    name: Option<&'a str>,
    against: Option<&'a str>,
    /// For the benchmark.
    rest: &'a [&'a str],
}

/// Each benchmark is a program of benches/, a workspace of its own, or a package of its own in
/// there; it writes its results itself.
pub(crate) fn main(args: &[&str]) -> Result<ExitCode> {
    let Args { name, against, rest } = Args::parse(args)?;
    let known = names(&root().join("benches"))?;
    let names = match name {
        None => known.iter().collect(),
        Some(name) => match known.get(name) {
            Some(name) => vec![name],
            None => {
                let list: Vec<&str> = known.iter().map(String::as_str).collect();
                return Err(format!("no benchmark {name:?}: there are {}", list.join(", ")).into());
            }
        },
    };
    protoc::set_up()?;
    fs::create_dir_all(target().join("bench"))?;
    if let Some(revision) = against {
        return against::main(&names, revision, rest);
    }
    let mut programs = Vec::new();
    for name in &names {
        eprintln!("building benchmark {name} and its peers (minutes the first time)");
        programs.push(build(name, root())?);
    }
    let mut passed = true;
    for (name, program) in names.iter().zip(programs) {
        let mut run = Command::new(program);
        with_server(run.args(rest), name)?;
        passed &= succeeds(&mut run)?;
        let results = target().join("bench").join(format!("{name}.jsonl"));
        if results.is_file() {
            eprintln!("results of {name}: {}", results.display());
        }
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl<'a> Args<'a> {
    fn parse(args: &'a [&'a str]) -> Result<Self> {
        let end = args.iter().position(|arg| *arg == "--").unwrap_or(args.len());
        let (own, rest) = (&args[..end], args.get(end + 1..).unwrap_or_default());
        let is_name = |arg: &str| !arg.starts_with('-');
        let (name, against) = match *own {
            [] => (None, None),
            [name] if is_name(name) => (Some(name), None),
            ["--against", revision] if is_name(revision) => (None, Some(revision)),
            [name, "--against", revision] | ["--against", revision, name]
                if is_name(name) && is_name(revision) =>
            {
                (Some(name), Some(revision))
            }
            _ => return Err("usage: cargo xtask bench [NAME] [--against REV] [-- ARGS]".into()),
        };
        Ok(Self { name, against, rest })
    }
}

/// Names the registry's servers to a benchmark that starts one.
fn with_server(command: &mut Command, name: &str) -> Result<()> {
    if servers::names().contains(&name) {
        let (variable, list) = servers::test_environment(name, &servers::set_up(name)?);
        command.env(variable, list);
    }
    Ok(())
}

/// From `src/bin/name.rs`, `src/bin/name/main.rs` and `name/Cargo.toml`.
fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let programs = folder.join("src/bin");
    let entries = fs::read_dir(&programs)
        .map_err(|error| format!("no benchmarks in {}: {error}", programs.display()))?;
    let mut names = BTreeSet::new();
    for entry in entries.chain(fs::read_dir(folder)?) {
        let path = entry?.path();
        let is_program = path.extension().is_some_and(|it| it == "rs")
            || path.join("main.rs").is_file()
            || path.join("Cargo.toml").is_file();
        if is_program && let Some(stem) = path.file_stem() {
            names.insert(stem.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Builds a benchmark of the repository in `tree`, and returns its program.
///
/// It passes on cargo's messages, and finds in them the packages that the machine lacks.
fn build(name: &str, tree: &Path) -> Result<PathBuf> {
    let own = tree.join("benches").join(name).join("Cargo.toml");
    let manifest = if own.is_file() { own } else { tree.join("benches/Cargo.toml") };
    let mut command = cargo(["build", "--release", "--bin", name, "--manifest-path"]);
    let folder = target().join("bench-build");
    command.arg(manifest).env("CARGO_TARGET_DIR", &folder);
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut missing = BTreeSet::new();
    for line in child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).lines()) {
        let line = line?;
        eprintln!("{line}");
        missing.extend(missing_package(&line));
    }
    if child.wait()?.success() {
        return Ok(folder.join("release").join(name));
    }
    let hints: Vec<String> = missing
        .iter()
        .map(|package| format!("; Debian's package `{package}` is missing"))
        .collect();
    Err(format!("benchmark {name} or a peer of it cannot be built{}", hints.concat()).into())
}

fn missing_package(line: &str) -> Option<&'static str> {
    let hint = HINTS.iter().find(|(text, _)| line.contains(text));
    hint.map(|(_, package)| *package)
}

/// A message of build scripts or compilers, and Debian's package for it.
const HINTS: &[(&str, &str)] = &[
    ("is `cmake` not installed", "cmake"),
    ("linker `cc` not found", "build-essential"),
    ("failed to find tool \"cc\"", "build-essential"),
    ("failed to find tool \"c++\"", "g++"),
    ("Could not find `protoc`", "protobuf-compiler"),
    ("Unable to find libclang", "libclang-dev"),
    ("could not find the `pkg-config`", "pkg-config"),
    ("fatal error: openssl/", "libssl-dev"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_a_name_a_revision_and_the_rest() {
        let shown = |args: &[&str]| {
            let Ok(Args { name, against, rest }) = Args::parse(args) else {
                return "refused".to_owned();
            };
            format!("{name:?} {against:?} {}", rest.join(" "))
        };
        let rows: [(&[&str], &str); 9] = [
            (&[], "None None "),
            (&["pick"], "Some(\"pick\") None "),
            (&["pick", "--", "10", "--x"], "Some(\"pick\") None 10 --x"),
            (&["pick", "--against", "HEAD~1"], "Some(\"pick\") Some(\"HEAD~1\") "),
            (&["--against", "a", "pick", "--", "10"], "Some(\"pick\") Some(\"a\") 10"),
            (&["--against", "main"], "None Some(\"main\") "),
            (&["pick", "--against"], "refused"),
            (&["pick", "calls"], "refused"),
            (&["--agains", "main", "pick"], "refused"),
        ];
        for (args, expected) in rows {
            assert_eq!(shown(args), expected, "{args:?}");
        }
    }

    #[test]
    fn missing_tool_is_named_by_its_package() {
        assert_eq!(missing_package("  is `cmake` not installed?"), Some("cmake"));
        assert_eq!(missing_package("error: linker `cc` not found"), Some("build-essential"));
        assert_eq!(missing_package("error[E0308]: mismatched types"), None);
    }
}
