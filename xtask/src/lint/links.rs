//! Files that the documents name are there: documents rot by their names first.

use std::fs;

use crate::command::{Result, root};

pub(super) fn check() -> Result<()> {
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let Ok(text) = fs::read_to_string(root().join(document)) else {
            missing.push(format!("there is no {document}"));
            continue;
        };
        for path in paths(&text, &|first| root().join(first).exists()) {
            if !root().join(path).exists() {
                missing.push(format!("{document}: there is no {path}"));
            }
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n").into()) }
}

/// Targets of links to files, and words in backticks that can only be paths of ours.
fn paths<'a>(text: &'a str, is_ours: &dyn Fn(&str) -> bool) -> Vec<&'a str> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    let links = links.filter(|link| !link.is_empty() && !link.contains(':'));
    // Every second piece between backticks is quoted; blocks between ``` have line breaks.
    let words = text.split('`').skip(1).step_by(2).filter(|word| is_path(word, is_ours));
    links.chain(words).collect()
}

/// `crates/core/src/lib.rs`, `deny.toml`; but not `GET /health`, `a/b`, `crates/<name>`, or the
/// `client.rs` that each backend has.
fn is_path(word: &str, is_ours: &dyn Fn(&str) -> bool) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if !word.chars().all(plain) {
        return false;
    }
    match word.split_once('/') {
        // What lies under target/ comes and goes.
        Some((first, _)) => first != "target" && !first.is_empty() && is_ours(first),
        None => [".lock", ".md", ".toml"]
            .iter()
            .any(|end| word.len() > end.len() && word.ends_with(end)),
    }
}

const DOCUMENTS: &[&str] = &["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        paths(text, &|first| ["crates", ".ci", "target"].contains(&first))
    }

    #[test]
    fn paths_in_backticks_and_links_are_found() {
        let text =
            "See `crates/core/src/loop.rs`, `.ci/run`, `deny.toml` and [this](CHANGELOG.md#top).";
        assert_eq!(
            found(text),
            ["CHANGELOG.md", "crates/core/src/loop.rs", ".ci/run", "deny.toml"]
        );
    }

    #[test]
    fn other_words_are_not_paths() {
        let text = "`GET /health`, `/health`, `application/json`, `Arc`crates/no.rs`Arc`,\n\
                    `crates/<name>`, `target/servers`, `Arc`, `.md`, `lib.rs`,\n\
                    [there](https://example.com/a.md), [above](#top)\n```\ncrates/none.rs\n```\n";
        assert_eq!(found(text), [""; 0]);
    }
}
