//! What a file uses of its own crate, as paths of modules.

use std::collections::BTreeMap;

/// `["a", "b"]` for `a/b.rs` and for `a/b/mod.rs`; empty for the crate's root.
pub(super) type Module = Vec<String>;

/// A source file, as far as its imports are concerned.
#[derive(Debug)]
pub(super) struct File {
    /// Its path below `src`.
    pub(super) name: String,
    /// Paths that begin with `crate`, `super` or `self`, and private imports of submodules.
    pub(super) uses: Vec<Vec<String>>,
    /// Public re-exports: the last name, and its path.
    shows: BTreeMap<String, Vec<String>>,
}

/// The module of a file; none for tests.
pub(super) fn module(name: &str) -> Option<Module> {
    let parts: Vec<&str> = name.strip_suffix(".rs")?.split('/').collect();
    let is_test = parts.iter().any(|part| ["tests", "test"].contains(part));
    let parts = parts.into_iter().filter(|part| !["lib", "main", "mod"].contains(part));
    (!is_test).then(|| parts.map(str::to_owned).collect())
}

impl File {
    pub(super) fn parse(name: String, text: &str) -> Self {
        let code = code(text);
        let mut file = Self { name, uses: Vec::new(), shows: BTreeMap::new() };
        let mut inline = String::new();
        let mut rest = code.as_str();
        while let Some((before, is_public, tree, after)) = next_use(rest) {
            inline += before;
            for path in expand(tree) {
                if is_public {
                    let shown = path.last().cloned().unwrap_or_default();
                    file.shows.insert(shown, path);
                } else {
                    file.uses.push(path);
                }
            }
            rest = after;
        }
        inline += rest;
        file.uses.extend(inline_paths(&inline));
        file
    }
}

/// The file that defines what a path names, seen from a module; none for other crates.
pub(super) fn resolve<'a>(
    files: &'a BTreeMap<Module, File>,
    from: &[String],
    path: &[String],
) -> Option<&'a File> {
    follow(files, from, path, 0).and_then(|module| files.get(&module))
}

fn follow(
    files: &BTreeMap<Module, File>,
    from: &[String],
    path: &[String],
    depth: usize,
) -> Option<Module> {
    let mut module = from.to_vec();
    let mut names = path;
    let mut is_ours = false;
    while let Some((name, rest)) = names.split_first() {
        match name.as_str() {
            "crate" => module.clear(),
            "self" => {}
            "super" => {
                module.pop()?;
            }
            _ => break,
        }
        (names, is_ours) = (rest, true);
    }
    while let Some((name, rest)) = names.split_first() {
        let child: Module = module.iter().chain([name]).cloned().collect();
        if files.contains_key(&child) {
            (module, names, is_ours) = (child, rest, true);
            continue;
        }
        let shown = files.get(&module).and_then(|file| file.shows.get(name));
        // A path without an end is a circle of re-exports, which does not compile.
        return match shown {
            Some(shown) if (is_ours || depth > 0) && depth < 10 => {
                let path: Vec<String> = shown.iter().chain(rest).cloned().collect();
                follow(files, &module, &path, depth + 1).or(Some(module))
            }
            _ => is_ours.then_some(module),
        };
    }
    is_ours.then_some(module)
}

/// The text without comments, without tests, and without imports for tests.
fn code(text: &str) -> String {
    let text = text.split("\nmod tests {").next().unwrap_or(text);
    let mut code = String::new();
    let mut skip = false;
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        if skip {
            skip = !line.trim_end().ends_with([';', '}']);
            continue;
        }
        skip = line.trim() == "#[cfg(test)]";
        if !skip {
            code += line;
            code.push('\n');
        }
    }
    code
}

/// What comes before the next import, whether it is public, its tree, and what follows.
fn next_use(text: &str) -> Option<(&str, bool, &str, &str)> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        let (visibility, used) = trimmed.split_once("use ").unwrap_or((trimmed, ""));
        let is_use =
            visibility.is_empty() || (visibility.starts_with("pub") && visibility.ends_with(' '));
        if is_use && !used.is_empty() && !visibility.contains(['{', '=', ';']) {
            let tree = start + (line.len() - trimmed.len()) + visibility.len() + 4;
            let end = tree + text[tree..].find(';')?;
            return Some((
                &text[..start],
                !visibility.is_empty(),
                &text[tree..end],
                &text[end + 1..],
            ));
        }
        start += line.len();
    }
    None
}

/// The paths of a tree such as `crate::{a::{B, C as D}, e}`.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((prefix, inner)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        let names = path.split("::").map(str::trim).filter(|name| !name.is_empty());
        return vec![names.map(str::to_owned).collect()];
    };
    let prefix: Vec<String> = prefix
        .split("::")
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    let inner = inner.trim().strip_suffix('}').unwrap_or(inner);
    let mut paths = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (index, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                let part = &inner[start..index];
                if !part.trim().is_empty() {
                    paths.extend(
                        expand(part).into_iter().map(|path| [prefix.clone(), path].concat()),
                    );
                }
                start = index + 1;
            }
            _ => {}
        }
    }
    paths
}

/// `crate::a::B` and `super::c` in the midst of code.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for begin in ["crate::", "super::"] {
        for (start, _) in code.match_indices(begin) {
            if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let path = code[start..].split(|c| !is_path(c)).next().unwrap_or_default();
            let names = path.split("::").filter(|name| !name.is_empty() && !name.contains(':'));
            paths.push(names.map(str::to_owned).collect());
        }
    }
    paths
}
