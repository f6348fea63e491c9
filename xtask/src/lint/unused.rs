//! Every dependency that a manifest lists is named in the package's code.

use std::fs;
use std::path::Path;

use super::files::under;
use crate::command::Result;
use crate::packages::{self, Package};

pub(super) fn check() -> Result<()> {
    let mut unused = Vec::new();
    for package in packages::all()? {
        let name = &package.manifest.name;
        let found = unused_of(&package)?;
        unused.extend(
            found.into_iter().map(|dependency| format!("{name} does not use {dependency}")),
        );
    }
    if unused.is_empty() { Ok(()) } else { Err(unused.join("\n").into()) }
}

fn unused_of(package: &Package) -> Result<Vec<&str>> {
    let built = code(&package.path, &["src", "build.rs"])?;
    let tested = code(&package.path, &[".", "README.md"])?;
    let manifest = &package.manifest;
    let in_build = manifest.dependencies.iter().filter(|name| !uses(&built, name));
    let in_tests = manifest.dev_dependencies.iter().filter(|name| !uses(&tested, name));
    let names = in_build.chain(in_tests).map(String::as_str);
    Ok(names.filter(|name| !FOR_FEATURES.contains(&(manifest.name.as_str(), name))).collect())
}

fn code(package: &Path, rooms: &[&str]) -> Result<String> {
    let mut code = String::new();
    for room in rooms.iter().map(|room| package.join(room)) {
        let files = if room.is_dir() { under(&room, &["rs"])? } else { vec![room] };
        for file in files.into_iter().filter(|file| file.is_file()) {
            code += &fs::read_to_string(file)?;
        }
    }
    Ok(code)
}

/// Whether a crate is named as a path begins, `tokio::`, or imported whole, `use tokio;`.
fn uses(code: &str, dependency: &str) -> bool {
    let name = dependency.replace('-', "_");
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(&name).any(|(start, _)| {
        let (before, after) = (&code[..start], &code[start + name.len()..]);
        let begins = !before.ends_with(is_name) && !is_inner(before);
        begins && (after.starts_with("::") || is_imported(before, after))
    })
}

/// `a::name`, but not `::name`.
fn is_inner(before: &str) -> bool {
    let outer = before.strip_suffix("::");
    outer.is_some_and(|outer| outer.ends_with(|c: char| c.is_alphanumeric() || "_>})".contains(c)))
}

fn is_imported(before: &str, after: &str) -> bool {
    let before = before.trim_end_matches("::");
    before.ends_with("use ") && (after.starts_with(';') || after.starts_with(" as "))
}

/// (package, dependency): there to switch on a feature of it that the package needs.
const FOR_FEATURES: &[(&str, &str)] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_or_import_is_a_use() {
        assert!(uses("use serde_json::Value;", "serde-json"));
        assert!(uses("let x = ::http::Uri::default();", "http"));
        assert!(uses("use bytes as b;", "bytes"));
        assert!(uses("/// use tokio::spawn;", "tokio"));
    }

    #[test]
    fn other_mentions_are_not_uses() {
        assert!(!uses("// http is a protocol", "http"));
        assert!(!uses("use hyper::http::Uri;", "http"));
        assert!(!uses("use my_http::Uri;", "http"));
        assert!(!uses("use httparse::Parser;", "http"));
    }
}
