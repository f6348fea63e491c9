//! `cargo xtask servers [NAME]`: the real servers that tests run against.

mod apt;
mod go;
mod installed;
mod maven;
mod python;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use crate::command::{Result, target};
pub(crate) use python::grpcio;
use table::{Origin, Release, SERVERS, Server};

/// One server program that runs on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binary {
    pub(crate) version: String,
    pub(crate) path: PathBuf,
}

pub(crate) fn main(args: &[&str]) -> Result<()> {
    let names = match args {
        [] => names(),
        [name] => vec![*name],
        _ => return Err("usage: cargo xtask servers [NAME]".into()),
    };
    for name in names {
        for binary in set_up(name)? {
            println!("{name:<8} {:<8} {}", binary.version, binary.path.display());
        }
    }
    Ok(())
}

/// The names of all servers we know.
pub(crate) fn names() -> Vec<&'static str> {
    SERVERS.iter().map(|server| server.name).collect()
}

/// Whether a server is no part of a run of everything without `--slow`.
pub(crate) fn is_on_request(name: &str) -> bool {
    SERVERS.iter().any(|server| server.name == name && server.on_request)
}

/// Every version of a server, fetched if need be. One on PATH stands in for the release it is of,
/// and is used beside them otherwise.
pub(crate) fn set_up(name: &str) -> Result<Vec<Binary>> {
    let server = find(name)?;
    if let Some(path) = installed::named_by_environment(server) {
        return Ok(vec![installed::probe(server, &path)?]);
    }
    let on_path = installed::on_path(server.program);
    let on_path = on_path.map(|path| installed::probe(server, &path)).transpose()?;
    let mut binaries = Vec::new();
    for release in server.releases {
        binaries.push(match &on_path {
            Some(binary) if is_of(&binary.version, release.version) => binary.clone(),
            _ if left_out(server, release) => continue,
            _ => fetched(server, release)?,
        });
    }
    let beside = on_path.filter(|binary| !binaries.contains(binary));
    binaries.extend(beside);
    match server.releases.last() {
        // It was requested; the tests of other servers name what they lack.
        Some(release) if binaries.is_empty() && server.on_request => {
            Err(sentence(server, release, NO_BUILDER).into())
        }
        _ => Ok(binaries),
    }
}

/// How tests learn about a server: `TOWER_SD_TEST_CONSUL=1.8.7=/path;1.15.4=/path`.
pub(crate) fn test_environment(name: &str, binaries: &[Binary]) -> (String, String) {
    let list: Vec<String> = binaries
        .iter()
        .map(|binary| format!("{}={}", binary.version, binary.path.display()))
        .collect();
    (variable(name), list.join(";"))
}

pub(crate) fn variable(name: &str) -> String {
    format!("TOWER_SD_TEST_{}", name.to_uppercase())
}

fn find(name: &str) -> Result<&'static Server> {
    let found = SERVERS.iter().find(|server| server.name == name);
    found.ok_or_else(|| format!("no server {name:?}: there are {}", names().join(", ")).into())
}

/// A release that only a compiler can make which is not installed, and that was not made earlier;
/// printed.
fn left_out(server: &Server, release: &Release) -> bool {
    let (builder, program) = match release.origin {
        Origin::Debian(_) => return false,
        Origin::Go(_) => ("Go", "go"),
        Origin::Maven => ("Maven", "mvn"),
    };
    let without = !home(server, release).is_dir() && installed::on_path(program).is_none();
    if without {
        let (name, version) = (server.name, release.version);
        eprintln!("left out {name} {version}: it is built with {builder}, which is not installed");
    }
    without
}

fn home(server: &Server, release: &Release) -> PathBuf {
    target().join("servers").join(format!("{}-{}", server.name, release.version))
}

/// The release's program, from an earlier run or fetched now.
fn fetched(server: &Server, release: &Release) -> Result<Binary> {
    let home = home(server, release);
    if !home.is_dir() {
        fetch(server, release, &home)
            .map_err(|error| sentence(server, release, &error.to_string()))?;
    }
    let program = match &release.origin {
        Origin::Debian(debian) => debian.program,
        Origin::Go(_) | Origin::Maven => server.program,
    };
    let binary = installed::probe(server, &home.join(program))?;
    if is_of(&binary.version, release.version) {
        return Ok(binary);
    }
    Err(sentence(server, release, &format!("what came is version {}", binary.version)).into())
}

/// Fetches into a folder of this process's own and renames it when all is there: a run that was
/// interrupted leaves nothing that seems complete, and concurrent runs do not meet.
fn fetch(server: &Server, release: &Release, home: &Path) -> Result<()> {
    let folder = target().join("servers");
    remove_leftovers(&folder)?;
    let work = folder.join(format!("{WORK_PREFIX}{}", process::id()));
    fs::create_dir(&work)?;
    let fetched = match &release.origin {
        Origin::Debian(debian) => apt::fetch(debian, release.version, &work),
        Origin::Go(source) => go::build(server, release.version, source, &work),
        Origin::Maven => maven::build(server, release.version, &work),
    };
    let moved = fetched.and_then(|fetched| match fs::rename(fetched, home) {
        Err(_) if home.is_dir() => Ok(()), // Another run was faster.
        result => Ok(result?),
    });
    fs::remove_dir_all(&work)?;
    moved
}

/// Work folders of processes that are gone. One with our own id is of an earlier life: containers
/// count anew.
fn remove_leftovers(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(WORK_PREFIX));
        let me = process::id().to_string();
        if owner.is_some_and(|pid| pid == me || !Path::new("/proc").join(pid).exists()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn sentence(server: &Server, release: &Release, reason: &str) -> String {
    let Server { name, program, .. } = server;
    let origin = match &release.origin {
        Origin::Debian(debian) => {
            format!("is Debian's package `{}` of {}", debian.packages[0], debian.suite)
        }
        Origin::Go(source) => format!("is built by Go (https://go.dev/dl) from {}", source.package),
        Origin::Maven => "is built by Maven".to_owned(),
    };
    format!(
        "cannot have {name} {}: {reason}\n\
         It {origin}. Run `cargo xtask servers {name}` where that can be fetched, \
         or name a program of your own: TOWER_SD_{}=/path/to/{program}",
        release.version,
        name.to_uppercase(),
    )
}

/// Whether a full version belongs to a line such as `3.5`.
fn is_of(version: &str, line: &str) -> bool {
    let rest = version.strip_prefix(line);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

const WORK_PREFIX: &str = "work-";
const NO_BUILDER: &str = "what builds it is not installed";

#[cfg(test)]
mod tests {
    use super::table::Go;
    use super::*;

    #[test]
    fn several_versions_make_one_variable() {
        let binary =
            |version: &str, path: &str| Binary { version: version.to_owned(), path: path.into() };
        let binaries = [binary("1.8.7", "/a/consul"), binary("1.15.4", "/b/consul")];
        let expected =
            ("TOWER_SD_TEST_CONSUL".to_owned(), "1.8.7=/a/consul;1.15.4=/b/consul".to_owned());
        assert_eq!(test_environment("consul", &binaries), expected);
    }

    #[test]
    fn version_belongs_to_its_line_only() {
        assert!(is_of("3.5.16", "3.5"));
        assert!(is_of("1.8.7", "1.8.7"));
        assert!(!is_of("3.50.1", "3.5"));
        assert!(!is_of("3.4.23", "3.5"));
    }

    #[test]
    fn failure_names_the_package_and_the_way_out() {
        let server = find("etcd").unwrap();
        let text = sentence(server, &server.releases[0], "no network");
        assert!(text.contains("no network"), "{text}");
        assert!(text.contains("`etcd-server`"), "{text}");
        assert!(text.contains("TOWER_SD_ETCD="), "{text}");
    }

    #[test]
    fn every_built_release_is_pinned() {
        for server in SERVERS {
            for release in server.releases {
                if let Origin::Go(Go { package, .. }) = &release.origin {
                    let pinned =
                        fs::read_to_string(go::folder(server, release.version).join("go.mod"));
                    let pinned = pinned.unwrap();
                    let is_tool = pinned.contains(&format!("\ntool {package}\n"));
                    assert!(is_tool || *package == ".", "{package}");
                    assert!(pinned.contains(&format!(" v{}", release.version)), "{package}");
                }
                if let Origin::Maven = release.origin {
                    let project = maven::folder(server, release.version);
                    let pinned = fs::read_to_string(project.join("pom.xml")).unwrap();
                    let version = format!("<version>{}</version>", release.version);
                    assert!(pinned.contains(&version), "{}", server.name);
                    assert!(project.join(server.program).is_file());
                }
            }
        }
    }

    #[test]
    fn unknown_server_is_refused_with_those_there_are() {
        let error = find("conzul").unwrap_err().to_string();
        assert!(error.contains("conzul") && error.contains("consul, "), "{error}");
        assert!(error.contains("etcd, "), "{error}");
    }
}
