//! core stays small: the author of a backend pays for nothing else.

use crate::command::{Result, cargo, output};

pub(super) fn check() -> Result<()> {
    let arguments = "tree --package tower-sd-core --edges normal,build --all-features \
                     --target all --prefix none --format {p}";
    let tree = output(&mut cargo(arguments.split(' ')))?;
    let found = banned(&tree);
    if found.is_empty() {
        return Ok(());
    }
    Err(format!(
        "tower-sd-core depends on {}: cargo tree -p tower-sd-core -i NAME shows how",
        found.join(", ")
    )
    .into())
}

fn banned(tree: &str) -> Vec<&str> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let mut found: Vec<&str> = names.filter(|name| BANNED.contains(name)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

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
    fn banned_packages_are_found_by_their_whole_name() {
        let tree = "tower-sd-core v0.1.0 (/x)\nhyper v1.12.0\nhttparse v1.0.0\nhyper v1.12.0 (*)\nring v0.17.14\n";
        assert_eq!(banned(tree), ["hyper", "ring"]);
    }
}
