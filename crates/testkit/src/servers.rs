//! The programs of real servers, from the environment that xtask sets.

use std::{env, error, fmt, path::PathBuf};

/// One version of a real server's program.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServerBinary {
    /// As the program prints it: `1.8.7`.
    pub version: String,
    /// Where it is.
    pub path: PathBuf,
}

/// No program is configured for a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MissingServer {
    server: &'static str,
    why: String,
}

impl ServerBinary {
    /// The program at `path`, which is of `version`.
    pub fn new(version: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { version: version.into(), path: path.into() }
    }
}

/// The programs of a server such as `"consul"` for tests, oldest first.
///
/// They are those in `TOWER_SD_TEST_CONSUL`, as
/// in `1.8.7=/path/consul;1.15.4=/path/consul`.
///
/// # Errors
///
/// The variable is not set, or not of that form.
pub fn configured(server: &'static str) -> Result<Vec<ServerBinary>, MissingServer> {
    let missing = |why| MissingServer { server, why };
    let name = variable(server);
    match env::var(&name) {
        Ok(text) => parse(&text)
            .map_err(|entry| missing(format!("{name} has {entry:?}, which is not version=/path"))),
        Err(error) => Err(missing(format!("{name}: {error}"))),
    }
}

/// The oldest and only one to use where a test needs just one.
///
/// # Panics
///
/// When there is none, with a sentence about what to do.
pub fn required(server: &'static str) -> ServerBinary {
    match configured(server) {
        Ok(binaries) => binaries.into_iter().next().expect("configured() returns at least one"),
        Err(missing) => panic!("{missing}"),
    }
}

fn variable(server: &str) -> String {
    format!("TOWER_SD_TEST_{}", server.to_uppercase())
}

/// `Err`: the entry that is wrong.
fn parse(text: &str) -> Result<Vec<ServerBinary>, String> {
    let entries = text.split(';').map(|entry| match entry.split_once('=') {
        Some((version, path)) if !version.is_empty() && !path.is_empty() => {
            Ok(ServerBinary::new(version, path))
        }
        _ => Err(entry.to_owned()),
    });
    entries.collect()
}

impl fmt::Display for MissingServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, why } = self;
        let origin = ORIGINS.iter().find(|(name, _)| name == server);
        let origin = origin.map_or("fetches it", |(_, origin)| origin);
        let variable = variable(server);
        write!(
            f,
            "needs a real {server} ({why}): run `cargo xtask test`, which {origin}, or name a program by \
             {variable}=version=/path"
        )
    }
}

impl error::Error for MissingServer {}

/// What makes the servers' programs.
const ORIGINS: &[(&str, &str)] = &[
    ("consul", "fetches Debian's package `consul`"),
    ("curator", "builds it with Maven"),
    ("etcd", "fetches Debian's package `etcd-server`"),
    ("eureka", "builds it with Maven"),
    ("gokit", "builds it with Go"),
    ("kubernetes", "builds its API server with Go when named: `cargo xtask test kubernetes`"),
    ("named", "fetches Debian's package `bind9`"),
    ("redis", "fetches Debian's package `redis-server`"),
    ("zookeeper", "fetches Debian's package `libzookeeper-java`"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_listed_in_the_order_given() {
        let list = parse("1.8.7=/a/consul;1.15.4=/b=c/consul").expect("well formed");
        let expected =
            [ServerBinary::new("1.8.7", "/a/consul"), ServerBinary::new("1.15.4", "/b=c/consul")];
        assert_eq!(list, expected);
    }

    #[test]
    fn entry_without_a_version_or_a_path_is_named() {
        for (text, wrong) in [("", ""), ("/a/consul", "/a/consul"), ("1=/a;=/b", "=/b")] {
            assert_eq!(parse(text), Err(wrong.to_owned()), "{text}");
        }
    }

    #[test]
    fn missing_server_names_the_package_that_has_it() {
        let error = configured("nothing").expect_err("not a server");
        assert!(error.to_string().contains("TOWER_SD_TEST_NOTHING"), "{error}");
        let error = MissingServer { server: "etcd", why: "not set".into() };
        assert!(error.to_string().contains("`etcd-server`"), "{error}");
        assert!(error.to_string().contains("cargo xtask test"), "{error}");
    }
}
