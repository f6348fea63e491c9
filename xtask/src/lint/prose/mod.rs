//! Docs, comments, messages and names of tests are plain technical English.

mod rules;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::command::{Result, output, root};
use rules::{Fault, Rule};

/// Fails on every fault in the folders that are [`CLEAN`].
pub(super) fn check() -> Result<()> {
    let mut found = Vec::new();
    for (path, text) in files()?.iter().filter(|(path, _)| is_clean(path)) {
        let (faults, _) = faults(path, text);
        found.extend(faults.into_iter().map(|(line, _, why)| format!("{path}:{line}: {why}")));
    }
    if found.is_empty() { Ok(()) } else { Err(found.join("\n").into()) }
}

/// Prints how many faults each folder has, or each of those below a path.
pub(super) fn count(of: Option<&str>) -> Result<()> {
    let mut counts: BTreeMap<&str, (usize, BTreeMap<Rule, usize>)> = BTreeMap::new();
    let files = files()?;
    for (path, text) in files.iter().filter(|(path, _)| of.is_none_or(|of| path.starts_with(of))) {
        let (faults, n_words) = faults(path, text);
        let row = counts.entry(folder(path)).or_default();
        row.0 += n_words;
        for (line, rule, why) in faults {
            *row.1.entry(rule).or_default() += 1;
            if of.is_some() {
                println!("{path}:{line}: {why}");
            }
        }
    }
    let heads: String = Rule::ALL.iter().map(|(_, name)| format!("{name:>9}")).collect();
    println!("{:<20} {:>7}{heads}   talk of 1 000 words", "folder", "words");
    for (folder, (n_words, faults)) in counts {
        let of = |rule| faults.get(rule).copied().unwrap_or_default();
        let row: String = Rule::ALL.iter().map(|(rule, _)| format!("{:>9}", of(rule))).collect();
        let tenths = of(&Rule::Talk) * 10_000 / n_words.max(1);
        println!("{folder:<20} {n_words:>7}{row}   {}.{}", tenths / 10, tenths % 10);
    }
    Ok(())
}

/// The faults of a file but for exceptions, and the number of its words.
fn faults(path: &str, text: &str) -> (Vec<Fault>, usize) {
    let (mut faults, n_words) = rules::faults(text, &text::paragraphs(path, text));
    let lines: Vec<&str> = text.lines().collect();
    faults.retain(|(number, ..)| {
        let line = lines.get(number - 1).copied().unwrap_or_default();
        !EXCEPTIONS.iter().any(|(file, part)| path == *file && line.contains(part))
    });
    (faults, n_words)
}

/// What git tracks and people write, with its path.
fn files() -> Result<Vec<(String, String)>> {
    let mut command = Command::new("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let list = output(&mut command)?;
    let mut files = Vec::new();
    for path in list.lines() {
        let known = EXTENSIONS.iter().any(|end| path.ends_with(end));
        let text = if known { fs::read_to_string(root().join(path)).ok() } else { None };
        let text =
            text.filter(|text| !text.lines().take(5).any(|line| line.contains("@generated")));
        files.extend(text.map(|text| (path.to_owned(), text)));
    }
    Ok(files)
}

/// `crates/core` of `crates/core/src/lib.rs`, `tests` of `tests/src/lib.rs`, the name of a file in
/// the root.
fn folder(path: &str) -> &str {
    let depth = if path.starts_with("crates/") || path.starts_with("examples/") { 2 } else { 1 };
    path.match_indices('/').nth(depth - 1).map_or(path, |(end, _)| &path[..end])
}

fn is_clean(path: &str) -> bool {
    CLEAN.iter().any(|clean| path.starts_with(clean))
}

const EXTENSIONS: &[&str] = &[".ci/run", ".md", ".proto", ".rs", ".toml", ".yml"];

/// Folders and files without a fault: `cargo xtask lint prose --count PATH` lists those of one.
const CLEAN: &[&str] = &[
    ".cargo",
    ".ci",
    ".github",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.toml",
    "README.md",
    "SECURITY.md",
    "benches",
    "clippy.toml",
    "crates/balance",
    "crates/config",
    "crates/consul",
    "crates/core",
    "crates/dns",
    "crates/etcd",
    "crates/eureka",
    "crates/http",
    "crates/kubernetes",
    "crates/lifecycle",
    "crates/net",
    "crates/testkit",
    "crates/tonic",
    "crates/tower-sd",
    "deny.toml",
    "crates/zookeeper",
    "examples",
    "rustfmt.toml",
    "tests",
    "xtask",
];

/// (file, a part of the line): a word that is meant, such as a protocol's own term.
const EXCEPTIONS: &[(&str, &str)] = &[
    // The Rust of it is generated, with a fingerprint of the file.
    ("crates/tonic/tests/proto/echo.proto", "tests and the README of this crate"),
    ("crates/zookeeper/src/client/wire.rs", ".text(\"any"),
    ("xtask/src/lint/prose/rules.rs", ""),
    ("xtask/src/lint/prose/tests.rs", ""),
];
