//! What our crates bring into the build of their users.
//!
//! core stays small: the author of a backend pays for nothing else. The first program of an
//! application, with Consul and HTTP, compiles no more than it did before `tower-sd` had features.

use std::collections::BTreeSet;

use crate::command::{Result, cargo, output};

pub(super) fn check() -> Result<()> {
    let core = tree("tower-sd-core --all-features --target all --edges normal,build")?;
    let found: Vec<&str> = BANNED.iter().copied().filter(|name| core.contains(*name)).collect();
    if !found.is_empty() {
        let found = found.join(", ");
        let how = "cargo tree -p tower-sd-core -i NAME shows how";
        return Err(format!("tower-sd-core depends on {found}: {how}").into());
    }
    let count = tree("tower-sd --features consul,http --edges normal")?.len();
    println!("tower-sd with consul and http compiles {count} crates");
    if count > MAX_CRATES {
        return Err(format!("more than {MAX_CRATES}: cargo tree -p tower-sd lists them").into());
    }
    Ok(())
}

/// The names of the packages in the tree of a package.
fn tree(arguments: &str) -> Result<BTreeSet<String>> {
    let mut command = cargo("tree --prefix none --format {p} --package".split(' '));
    Ok(names(&output(command.args(arguments.split(' ')))?))
}

fn names(tree: &str) -> BTreeSet<String> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

/// Counted at 4d7670c, of tower-sd, tower-sd-consul and tower-sd-http, where TLS was always there.
/// With `tls-ring` it is 106 today.
const MAX_CRATES: usize = 110;

const BANNED: &[&str] = &[
    "aws-lc-rs",
    "axum",
    "h2",
    "http",
    "hyper",
    "hyper-util",
    "native-tls",
    "openssl",
    "reqwest",
    "ring",
    "rustls",
    "tonic",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_a_tree_are_counted_once_by_their_whole_name() {
        let tree = "tower-sd-core v0.1.0 (/x)\nhyper v1.12.0\nhttparse v1.0.0\nhyper v1.12.0 (*)\n";
        let expected = ["httparse", "hyper", "tower-sd-core"].map(str::to_owned);
        assert_eq!(names(tree), expected.into());
    }
}
