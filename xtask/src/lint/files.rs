//! The length of files under crates/, generated ones apart.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Result, root};

pub(super) fn check() -> Result<()> {
    let mut long = Vec::new();
    for file in under(&root().join("crates"), &["md", "rs"])? {
        let text = fs::read_to_string(&file)?;
        let lines = text.lines().count();
        if lines > MAX_LINES && !is_generated(&text) {
            long.push(format!("{}: {lines} lines, more than {MAX_LINES}", file.display()));
        }
    }
    if long.is_empty() { Ok(()) } else { Err(long.join("\n").into()) }
}

/// The files below a folder with one of these extensions, sorted.
pub(super) fn under(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name() != Some(OsStr::new("target")) {
            files.extend(under(&path, extensions)?);
        } else if extensions.iter().any(|it| path.extension() == Some(OsStr::new(it))) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_generated(text: &str) -> bool {
    text.lines().take(5).any(|line| line.contains("@generated"))
}

/// Longer than this, a file holds more than one idea; 300 is the aim.
const MAX_LINES: usize = 400;
