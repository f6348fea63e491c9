//! The workspace's packages, and what their tests need.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Result, root};
use crate::manifest::Manifest;
use crate::servers;

/// A package of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    /// The last part of its path, which is what commands call it.
    pub(crate) folder: String,
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
}

impl Package {
    /// Whether it is published: those in `crates/` are.
    pub(crate) fn is_crate(&self) -> bool {
        self.path.parent().is_some_and(|folder| folder.ends_with("crates"))
    }

    pub(crate) fn has_library(&self) -> bool {
        self.path.join("src/lib.rs").is_file()
    }

    fn read(path: PathBuf) -> Result<Self> {
        let file = path.join("Cargo.toml");
        let text = fs::read_to_string(&file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let folder = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { folder, manifest: Manifest::parse(&text), path })
    }
}

/// All of them, sorted by path.
pub(crate) fn all() -> Result<Vec<Package>> {
    let mut paths = vec![root().join("tests"), root().join("xtask")];
    for room in ["crates", "examples"] {
        for entry in fs::read_dir(root().join(room))? {
            paths.push(entry?.path());
        }
    }
    paths.retain(|path| path.join("Cargo.toml").is_file());
    paths.sort();
    paths.into_iter().map(Package::read).collect()
}

/// The package in a folder of crates/ or examples/, or `tests` or `xtask`.
pub(crate) fn find(name: &str) -> Result<Package> {
    let (mut found, others): (Vec<_>, Vec<_>) =
        all()?.into_iter().partition(|package| package.folder == name);
    found.pop().ok_or_else(|| {
        let folders: Vec<String> = others.into_iter().map(|package| package.folder).collect();
        format!("no package {name:?}: there are {}", folders.join(", ")).into()
    })
}

/// What the tests of one folder need to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    pub(crate) servers: Servers,
    pub(crate) tests: Threads,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Servers {
    None,
    All,
    These(&'static [&'static str]),
}

/// How many tests of a binary run concurrently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// Tests that watch the wall clock, start clusters or own ports. They wait most of their time,
    /// so that some binaries run side by side.
    One,
    /// Pure logic and paused clocks: all cores are busy, and no other binary runs.
    Many,
}

impl Servers {
    pub(crate) fn names(self) -> Vec<&'static str> {
        match self {
            Self::None => Vec::new(),
            Self::All => servers::names(),
            Self::These(names) => names.to_vec(),
        }
    }
}

/// A folder without a row needs no server, and its tests run one at a time.
pub(crate) fn needs(folder: &str) -> Needs {
    let row = NEEDS.iter().find(|(name, _)| *name == folder);
    row.map_or(Needs { servers: Servers::None, tests: Threads::One }, |(_, needs)| *needs)
}

const NEEDS: &[(&str, Needs)] = &[
    ("arithmetic", Needs { servers: Servers::All, tests: Threads::One }),
    (
        "config",
        Needs { servers: Servers::These(&["consul", "etcd", "zookeeper"]), tests: Threads::One },
    ),
    ("consul", Needs { servers: Servers::These(&["consul"]), tests: Threads::One }),
    ("core", Needs { servers: Servers::None, tests: Threads::Many }),
    ("dns", Needs { servers: Servers::These(&["consul", "named"]), tests: Threads::One }),
    ("echo", Needs { servers: Servers::These(&["consul"]), tests: Threads::One }),
    ("etcd", Needs { servers: Servers::These(&["etcd"]), tests: Threads::One }),
    ("eureka", Needs { servers: Servers::These(&["eureka", "gokit"]), tests: Threads::One }),
    ("gateway", Needs { servers: Servers::These(&["consul"]), tests: Threads::One }),
    ("kubernetes", Needs { servers: Servers::These(&["etcd", "kubernetes"]), tests: Threads::One }),
    ("testkit", Needs { servers: Servers::All, tests: Threads::One }),
    ("tests", Needs { servers: Servers::All, tests: Threads::One }),
    ("balance", Needs { servers: Servers::None, tests: Threads::Many }),
    ("webkv", Needs { servers: Servers::These(&["consul", "redis"]), tests: Threads::One }),
    (
        "zookeeper",
        Needs { servers: Servers::These(&["curator", "gokit", "zookeeper"]), tests: Threads::One },
    ),
    ("xtask", Needs { servers: Servers::None, tests: Threads::Many }),
];

/// The server on request that a test binary needs, by its source.
pub(crate) fn server_on_request(source: &str) -> Option<&'static str> {
    ON_REQUEST.iter().find(|(binary, _)| *binary == source).map(|(_, server)| *server)
}

const ON_REQUEST: &[(&str, &str)] = &[
    ("examples/arithmetic/tests/kubernetes.rs", "kubernetes"),
    ("crates/kubernetes/tests/conformance.rs", "kubernetes"),
    ("crates/kubernetes/tests/conformance_shared.rs", "kubernetes"),
    ("crates/kubernetes/tests/real/main.rs", "kubernetes"),
];

/// How the tests of the package at this path run.
pub(crate) fn threads(package: &Path) -> Threads {
    needs(&package.file_name().unwrap_or_default().to_string_lossy()).tests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_folder_with_known_servers() {
        for (folder, needs) in NEEDS {
            find(folder).unwrap();
            let unknown =
                needs.servers.names().into_iter().find(|it| !servers::names().contains(it));
            assert_eq!(unknown, None, "of {folder}");
        }
    }

    #[test]
    fn every_binary_with_a_server_on_request_exists() {
        for (source, server) in ON_REQUEST {
            assert!(root().join(source).is_file(), "{source}");
            assert!(servers::is_on_request(server), "{server}");
        }
    }

    #[test]
    fn folder_without_a_row_is_tested_one_at_a_time() {
        assert_eq!(threads(Path::new("/somewhere/crates/unheard-of")), Threads::One);
        assert_eq!(threads(Path::new("/somewhere/crates/core")), Threads::Many);
    }

    #[test]
    fn unknown_package_is_refused_with_those_there_are() {
        let error = find("cor").unwrap_err().to_string();
        assert!(error.contains("\"cor\"") && error.contains("core, "), "{error}");
    }
}
