//! `cargo xtask bench [NAME] [-- ARGS]`: the benchmarks, side by side with their peers.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::command::{Result, cargo, root, succeeds, target};
use crate::{protoc, servers};

/// Each benchmark is a program of benches/, a workspace of its own; it writes its results itself.
pub(crate) fn main(args: &[&str]) -> Result<ExitCode> {
    let mut parts = args.splitn(2, |arg| *arg == "--");
    let (chosen, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let known = names(&root().join("benches/src/bin"))?;
    let names = match chosen {
        [] => known.iter().collect(),
        [name] => match known.get(*name) {
            Some(name) => vec![name],
            None => {
                let list: Vec<&str> = known.iter().map(String::as_str).collect();
                return Err(format!("no benchmark {name:?}: there are {}", list.join(", ")).into());
            }
        },
        _ => return Err("usage: cargo xtask bench [NAME] [-- ARGS]".into()),
    };
    protoc::set_up()?;
    fs::create_dir_all(target().join("bench"))?;
    for name in &names {
        eprintln!("building benchmark {name} and its peers (minutes the first time)");
        build(name)?;
    }
    let mut passed = true;
    for name in &names {
        let mut run = benchmark("run", name);
        if servers::names().contains(&name.as_str()) {
            let (variable, list) = servers::test_environment(name, &servers::set_up(name)?);
            run.env(variable, list);
        }
        passed &= succeeds(run.arg("--").args(rest))?;
        let results = target().join("bench").join(format!("{name}.jsonl"));
        if results.is_file() {
            eprintln!("results of {name}: {}", results.display());
        }
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// From `name.rs` and `name/main.rs`.
fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("no benchmarks in {}: {error}", folder.display()))?;
    let mut names = BTreeSet::new();
    for entry in entries {
        let path = entry?.path();
        let is_program =
            path.extension().is_some_and(|it| it == "rs") || path.join("main.rs").is_file();
        if is_program && let Some(stem) = path.file_stem() {
            names.insert(stem.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn benchmark(verb: &str, name: &str) -> Command {
    let mut command =
        cargo([verb, "--release", "--manifest-path", "benches/Cargo.toml", "--bin", name]);
    command.env("CARGO_TARGET_DIR", target().join("bench-build"));
    command
}

/// Passes on what cargo says, and looks in it for what the machine lacks.
fn build(name: &str) -> Result<()> {
    let mut command = benchmark("build", name);
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut missing = BTreeSet::new();
    for line in child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).lines()) {
        let line = line?;
        eprintln!("{line}");
        missing.extend(missing_package(&line));
    }
    if child.wait()?.success() {
        return Ok(());
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

/// What build scripts and compilers say, and Debian's package for it.
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
    fn missing_tool_is_named_by_its_package() {
        assert_eq!(missing_package("  is `cmake` not installed?"), Some("cmake"));
        assert_eq!(missing_package("error: linker `cc` not found"), Some("build-essential"));
        assert_eq!(missing_package("error[E0308]: mismatched types"), None);
    }
}
