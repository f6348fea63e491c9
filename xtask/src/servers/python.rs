//! Servers in Python, from PyPI, as a `requirements.txt` of ours pins them.

use std::fs;
use std::path::Path;
use std::process::{self, Command};

use super::{WORK_PREFIX, remove_leftovers};
use crate::command::{Result, output, root, target};

/// Installs gRPC's C core, and returns the variable by which tests find its interpreter.
pub(crate) fn grpcio() -> Result<(String, String)> {
    let home = target().join("servers/grpcio");
    let pinned = root().join("xtask/servers/grpcio/requirements.txt");
    let installed = fs::read(home.join(PINNED)).ok();
    if installed != Some(fs::read(&pinned)?) {
        install(&home, &pinned).map_err(|error| {
            format!(
                "cannot have grpcio: {error}\nIt is installed by python3's modules venv and pip \
                 (Debian: `apt install python3-venv`) from PyPI"
            )
        })?;
    }
    let interpreter = home.join("bin/python");
    Ok(("TOWER_SD_TEST_GRPCIO".to_owned(), interpreter.display().to_string()))
}

/// Makes a virtual environment under a name of this process's own, and renames it at the end.
fn install(home: &Path, pinned: &Path) -> Result<()> {
    let folder = target().join("servers");
    remove_leftovers(&folder)?;
    let work = folder.join(format!("{WORK_PREFIX}{}", process::id()));
    output(Command::new("python3").args(["-m", "venv"]).arg(&work))?;
    let mut pip = Command::new(work.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "-r"]);
    output(pip.arg(pinned))?;
    fs::copy(pinned, work.join(PINNED))?;
    if home.is_dir() {
        fs::remove_dir_all(home)?;
    }
    Ok(fs::rename(&work, home)?)
}

/// The requirements that were installed.
const PINNED: &str = "requirements.txt";
