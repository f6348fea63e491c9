//! Which servers there are, in which versions, and where they come from.

/// A kind of server. To add one, or a version of one, add a row to [`SERVERS`].
#[derive(Debug)]
pub(super) struct Server {
    /// As in `cargo xtask servers NAME` and `TOWER_SD_TEST_NAME`.
    pub(super) name: &'static str,
    /// The program's file name, searched on PATH too.
    pub(super) program: &'static str,
    /// Makes the program print its version and exit.
    pub(super) version_arg: &'static str,
    /// Oldest first.
    pub(super) releases: &'static [Release],
}

/// One version of a server.
#[derive(Debug)]
pub(super) struct Release {
    /// The version's line, as far as tests rely on it: a suite's updates change what follows.
    pub(super) version: &'static str,
    pub(super) origin: Origin,
}

#[derive(Debug)]
pub(super) enum Origin {
    Debian(Debian),
    /// This Go package, or with "." the program of ours beside it, pinned by
    /// `xtask/servers/NAME-VERSION/go.mod`; left out where Go is not installed.
    Go(&'static str),
    /// The project `xtask/servers/NAME-VERSION/pom.xml`; left out where Maven is not installed.
    Maven,
}

/// Packages of a Debian suite.
#[derive(Debug)]
pub(super) struct Debian {
    pub(super) suite: &'static str,
    /// The server's own package first, then those it needs.
    pub(super) packages: &'static [&'static str],
    /// Where the packages put the program.
    pub(super) program: &'static str,
    /// A program of ours in `xtask/servers/NAME`, put into this place after the packages were
    /// unpacked: a server that comes as archives of Java has none.
    pub(super) launcher: Option<&'static str>,
    /// For suites past their support, which no signature refreshes any more: the first package on
    /// amd64.
    pub(super) sha256: Option<&'static str>,
}

pub(super) const SERVERS: &[Server] = &[
    Server {
        name: "consul",
        program: "consul",
        version_arg: "version",
        releases: &[
            Release {
                version: "1.8.7",
                origin: Origin::Debian(Debian {
                    suite: "bullseye",
                    packages: &["consul"],
                    program: "usr/bin/consul",
                    launcher: None,
                    sha256: Some(
                        "e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9",
                    ),
                }),
            },
            // Later ones are under the Business Source License: used only when named.
            Release { version: "1.15.4", origin: Origin::Go("github.com/hashicorp/consul") },
        ],
    },
    // Not servers, but programs of others that use one.
    Server {
        name: "curator",
        program: "curator",
        version_arg: "--version",
        releases: &[Release { version: "5.9.0", origin: Origin::Maven }],
    },
    Server {
        name: "gokit",
        program: "gokit",
        version_arg: "--version",
        releases: &[Release { version: "0.13.0", origin: Origin::Go(".") }],
    },
    Server {
        name: "etcd",
        program: "etcd",
        version_arg: "--version",
        releases: &[
            Release { version: "3.4", origin: Origin::Debian(etcd_of("bookworm")) },
            Release { version: "3.5", origin: Origin::Debian(etcd_of("trixie")) },
            Release { version: "3.6.6", origin: Origin::Go("go.etcd.io/etcd/server/v3") },
        ],
    },
    Server {
        name: "eureka",
        program: "eureka",
        version_arg: "--version",
        releases: &[Release { version: "5.0.3", origin: Origin::Maven }],
    },
    Server {
        name: "named",
        program: "named",
        version_arg: "-v",
        releases: &[Release {
            version: "9.18",
            origin: Origin::Debian(Debian {
                suite: "bookworm",
                packages: &[
                    "bind9",
                    "bind9-dnsutils", // nsupdate
                    "bind9-libs",
                    "libcap2",
                    "libedit2",
                    "libfstrm0",
                    "libjemalloc2",
                    "libjson-c5",
                    "liblmdb0",
                    "libmaxminddb0",
                    "libnghttp2-14",
                    "libprotobuf-c1",
                    "libuv1",
                ],
                program: "usr/sbin/named",
                launcher: None,
                sha256: None,
            }),
        }],
    },
    Server {
        name: "redis",
        program: "redis-server",
        version_arg: "--version",
        releases: &[Release {
            version: "7.0",
            origin: Origin::Debian(Debian {
                suite: "bookworm",
                packages: &[
                    "redis-server",
                    "redis-tools", // the program that redis-server links to
                    "libatomic1",
                    "libjemalloc2",
                    "liblzf1",
                ],
                program: "usr/bin/redis-server",
                launcher: None,
                sha256: None,
            }),
        }],
    },
    Server {
        name: "zookeeper",
        program: "zookeeper",
        version_arg: "--version",
        releases: &[
            Release {
                version: "3.4.13",
                origin: Origin::Debian(Debian {
                    sha256: Some(
                        "9c4ab50e6d8fef7cd21b4d0a68d1bca1aea93e59022c806f1857504565e4b79d",
                    ),
                    ..zookeeper_of(
                        "bullseye",
                        &["libzookeeper-java", "liblog4j1.2-java", "libslf4j-java"],
                    )
                }),
            },
            Release { version: "3.8", origin: Origin::Debian(zookeeper_of("bookworm", ZOOKEEPER)) },
            Release { version: "3.9", origin: Origin::Debian(zookeeper_of("trixie", ZOOKEEPER)) },
        ],
    },
];

const fn etcd_of(suite: &'static str) -> Debian {
    Debian {
        suite,
        packages: &["etcd-server"],
        program: "usr/bin/etcd",
        launcher: None,
        sha256: None,
    }
}

/// Runs on the machine's Java.
const fn zookeeper_of(suite: &'static str, packages: &'static [&'static str]) -> Debian {
    let program = "usr/bin/zookeeper";
    Debian { suite, packages, program, launcher: Some("zookeeper"), sha256: None }
}

/// The server's own archives first.
const ZOOKEEPER: &[&str] = &[
    "libzookeeper-java",
    "libdropwizard-metrics-java",
    "liblog4j1.2-java",
    "libnetty-java", // for TLS
    "libslf4j-java",
    "libsnappy-java",
];
