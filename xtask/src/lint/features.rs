//! Each package by itself, with each of its features alone.
//!
//! In a build of the whole workspace a package profits from the features of a shared dependency
//! that others switch on; its users have no such neighbours.

use crate::command::{Result, cargo, succeeds};
use crate::packages;

pub(super) fn check() -> Result<()> {
    let mut failed = Vec::new();
    for package in packages::all()? {
        let name = &package.manifest.name;
        // Examples have no users of a feature alone.
        let features = if package.is_crate() { &*package.manifest.features } else { &[] };
        for features in combinations(features) {
            let mut command =
                cargo(["clippy", "--quiet", "--package", name, "--no-default-features"]);
            command.args(["--features", &features, "--", "-D", "warnings"]);
            if !succeeds(&mut command)? {
                failed.push(format!("{name} with features [{features}]"));
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}

/// None, then each alone; `default` stands for what most users have.
fn combinations(features: &[String]) -> Vec<String> {
    let mut combinations = vec![String::new()];
    combinations.extend(features.iter().cloned());
    combinations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_is_checked_without_and_with_each_feature() {
        let features = ["default".to_owned(), "tls".to_owned()];
        assert_eq!(combinations(&features), ["", "default", "tls"]);
        assert_eq!(combinations(&[]), [""]);
    }
}
