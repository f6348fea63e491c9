//! The files of a crate use each other in one direction, and so do its folders.
//!
//! A name is followed through `pub use` to the file that defines it. A crate's root or a `mod.rs`
//! that shows what its files define is therefore no part of a circle. Tests are left out.

mod graph;
mod paths;

use std::collections::BTreeMap;
use std::fs;

use super::files::under;
use crate::command::Result;
use crate::packages::{self, Package};
use graph::Graph;
use paths::{File, Module};

pub(super) fn check() -> Result<()> {
    let mut found = Vec::new();
    for package in packages::all()?.into_iter().filter(Package::is_crate) {
        let source = package.path.join("src");
        let mut files = BTreeMap::new();
        for path in under(&source, &["rs"])? {
            let name = path.strip_prefix(&source)?.display().to_string();
            if let Some(module) = paths::module(&name) {
                files.insert(module, File::parse(name, &fs::read_to_string(&path)?));
            }
        }
        for circle in circles(&files) {
            found.push(format!("{}: {}", package.folder, circle));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found.join("\n").into()) }
}

/// The circles of files, then those of the entries of each folder.
fn circles(files: &BTreeMap<Module, File>) -> Vec<String> {
    let mut by_file = Graph::default();
    let mut by_folder: BTreeMap<String, Graph> = BTreeMap::new();
    for (module, file) in files {
        for path in &file.uses {
            let Some(used) = paths::resolve(files, module, path) else { continue };
            by_file.add(&file.name, &used.name);
            if let Some((folder, from, to)) = siblings(&file.name, &used.name) {
                by_folder.entry(folder).or_default().add(from, to);
            }
        }
    }
    let mut circles = by_file.circles();
    for (folder, graph) in by_folder {
        circles
            .extend(graph.circles().into_iter().map(|circle| format!("in {folder:?}: {circle}")));
    }
    circles.dedup();
    circles
}

/// The folder in which the ways to two files part, and its two entries, where one is a folder.
fn siblings<'a>(from: &'a str, to: &'a str) -> Option<(String, &'a str, &'a str)> {
    let common = from.bytes().zip(to.bytes()).take_while(|(a, b)| a == b).count();
    let folder = from[..common].rfind('/').map_or(0, |slash| slash + 1);
    let entry = |name: &'a str| name[folder..].split('/').next().unwrap_or_default();
    let (from_entry, to_entry) = (entry(from), entry(to));
    // `a.rs` is the root of the folder `a`.
    let stem = |entry: &'a str| entry.strip_suffix(".rs").unwrap_or(entry);
    let is_file = |entry: &str| entry.ends_with(".rs");
    let entries = (stem(from_entry), stem(to_entry));
    let differ = entries.0 != entries.1 && !(is_file(from_entry) && is_file(to_entry));
    let is_root = |entry| ["lib", "mod"].contains(&entry);
    (differ && !is_root(entries.0) && !is_root(entries.1))
        .then(|| (from[..folder].to_owned(), entries.0, entries.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files = files.iter().map(|&(name, text)| {
            (paths::module(name).unwrap(), File::parse(name.to_owned(), text))
        });
        circles(&files.collect())
    }

    #[test]
    fn circle_of_files_is_found_through_re_exports() {
        let root = ("lib.rs", "mod a;\nmod b;\npub use a::A;\npub use b::{B, other::C};\n");
        let b = ("b/mod.rs", "mod other;\nstruct B;");
        let other = ("b/other.rs", "use crate::A;\nstruct C;");
        let a = |uses: &'static str| ("a.rs", uses);
        assert_eq!(found(&[root, b, other, a("use crate::B;\nstruct A;")]), ["in \"\": a → b → a"]);
        let circle = found(&[root, b, other, a("struct A(crate::C);")]);
        assert_eq!(circle, ["a.rs → b/other.rs → a.rs", "in \"\": a → b → a"]);
    }

    #[test]
    fn one_direction_is_no_circle() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\npub use a::A;\npub use b::B;"),
            ("a.rs", "use crate::b::B;\n// crate::C\n#[cfg(test)]\nmod tests { use crate::x; }"),
            ("b.rs", "use std::fmt;\nstruct B; struct C;\n#[cfg(test)]\nuse crate::A;"),
        ];
        assert_eq!(found(&files), [""; 0]);
    }

    #[test]
    fn circle_of_a_folder_with_its_neighbour_is_found() {
        let files = [
            ("lib.rs", "mod a;\nmod b;"),
            ("a/mod.rs", "mod one;\nmod two;"),
            ("a/one.rs", "use crate::b::B;"),
            ("a/two.rs", "struct Two;"),
            ("b.rs", "use crate::a::two::Two;"),
        ];
        assert_eq!(found(&files), ["in \"\": a → b → a"]);
    }
}
