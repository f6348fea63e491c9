//! Each crate can be published as it is, and nothing else can.

use crate::command::{Result, cargo, must_succeed};
use crate::packages::{self, Package};

pub(super) fn check() -> Result<()> {
    let faults: Vec<String> = packages::all()?.iter().filter_map(fault).collect();
    if !faults.is_empty() {
        return Err(faults.join("\n").into());
    }
    // Clippy has compiled the code, so the packages are not compiled once more.
    let publish = "publish --quiet --workspace --dry-run --no-verify --allow-dirty";
    must_succeed(&mut cargo(publish.split(' ')))
}

fn fault(package: &Package) -> Option<String> {
    let name = &package.manifest.name;
    if !package.is_crate() {
        return package
            .manifest
            .publish
            .then(|| format!("{name} is not for others: publish = false"));
    }
    let missing = LICENCES.iter().find(|file| !package.path.join(file).is_file());
    missing.map(|file| format!("{name} has no {file}"))
}

const LICENCES: &[&str] = &["LICENSE-APACHE", "LICENSE-MIT"];
