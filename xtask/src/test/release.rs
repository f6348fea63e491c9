//! What long tests under load start: a release build of the arithmetic example.

use crate::command::{Result, cargo, succeeds, target};

/// Builds it, and returns the variable by which tests find it.
pub(super) fn arithmetic() -> Result<(String, String)> {
    let build = ["build", "--release", "--package", "arithmetic", "--all-features"];
    if !succeeds(&mut cargo(build))? {
        return Err("cannot build arithmetic".into());
    }
    let program = target().join("release/arithmetic");
    Ok(("TOWER_SD_ARITHMETIC".to_owned(), program.display().to_string()))
}
