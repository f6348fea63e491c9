//! Servers that are on the machine already.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Binary;
use super::table::Server;
use crate::command::{Result, output};

/// `TOWER_SD_CONSUL=/path/to/consul` names the only one to use.
pub(super) fn named_by_environment(server: &Server) -> Option<PathBuf> {
    let path = env::var_os(format!("TOWER_SD_{}", server.name.to_uppercase()))?;
    Some(PathBuf::from(path))
}

pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Starts a program once to learn its version; one that does not start here is found out now.
pub(super) fn probe(server: &Server, path: &Path) -> Result<Binary> {
    let mut command = Command::new(path);
    // Consul checks for updates unless this is off.
    command.arg(server.version_arg).env("CHECKPOINT_DISABLE", "1");
    if let Some(libraries) = libraries_beside(path) {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let text = output(&mut command)?;
    let Some(version) = version(&text) else {
        return Err(format!("{} does not print its version", path.display()).into());
    };
    Ok(Binary { version, path: path.to_path_buf() })
}

/// `R/usr/lib/x86_64-linux-gnu` of `R/usr/sbin/program`, where packages were unpacked into a folder
/// R with the libraries that they need.
fn libraries_beside(program: &Path) -> Option<PathBuf> {
    let usr = program.parent()?.parent().filter(|usr| *usr != Path::new("/usr"))?;
    let folders = fs::read_dir(usr.join("lib")).ok()?;
    let mut folders = folders.flatten().map(|entry| entry.path());
    folders.find(|folder| folder.to_string_lossy().ends_with("-linux-gnu"))
}

/// The first word in the form of a version: `Consul v1.8.7`, `etcd Version: 3.5.16`, `Redis server
/// v=7.0.15`.
fn version(text: &str) -> Option<String> {
    let mut words = text.split_whitespace().map(|word| word.trim_start_matches(['v', '=']));
    let word =
        words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))?;
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    Some(word[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_what_servers_print() {
        assert_eq!(version("Consul v1.8.7\nRevision 1.8.7+dfsg1\n").as_deref(), Some("1.8.7"));
        assert_eq!(version("etcd Version: 3.5.16\nGit SHA: unknown\n").as_deref(), Some("3.5.16"));
        assert_eq!(version("BIND 9.18.33-1~deb12u2-Debian\n").as_deref(), Some("9.18.33"));
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n";
        assert_eq!(version(redis).as_deref(), Some("7.0.15"));
        assert_eq!(version("3 servers, of 1.2.3\n").as_deref(), Some("1.2.3"));
        assert_eq!(version("usage: etcd\n"), None);
    }
}
