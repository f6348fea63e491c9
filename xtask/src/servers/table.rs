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
    /// Takes minutes of all cores to build: no part of a run of everything without `--slow`.
    pub(super) on_request: bool,
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
    Go(Go),
    /// The project `xtask/servers/NAME-VERSION/pom.xml`; left out where Maven is not installed.
    Maven,
}

/// A Go package, or with "." the program of ours beside it, pinned by
/// `xtask/servers/NAME-VERSION/go.mod`; left out where Go is not installed.
#[derive(Debug)]
pub(super) struct Go {
    pub(super) package: &'static str,
    /// The variable of a program that has its version from its makers' build.
    pub(super) version_variable: Option<&'static str>,
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
            Release { version: "1.15.4", origin: go("github.com/hashicorp/consul") },
        ],
        on_request: false,
    },
    // Not servers, but programs of others that use one.
    Server {
        name: "curator",
        program: "curator",
        version_arg: "--version",
        releases: &[Release { version: "5.9.0", origin: Origin::Maven }],
        on_request: false,
    },
    Server {
        name: "gokit",
        program: "gokit",
        version_arg: "--version",
        releases: &[Release { version: "0.13.0", origin: go(".") }],
        on_request: false,
    },
    Server {
        name: "etcd",
        program: "etcd",
        version_arg: "--version",
        releases: &[
            Release { version: "3.4", origin: Origin::Debian(etcd_of("bookworm")) },
            Release { version: "3.5", origin: Origin::Debian(etcd_of("trixie")) },
            Release { version: "3.6.6", origin: go("go.etcd.io/etcd/server/v3") },
        ],
        on_request: false,
    },
    Server {
        name: "eureka",
        program: "eureka",
        version_arg: "--version",
        releases: &[Release { version: "5.0.3", origin: Origin::Maven }],
        on_request: false,
    },
    // Its data is in an etcd of ours.
    Server {
        name: "kubernetes",
        program: "kube-apiserver",
        version_arg: "--version",
        releases: &[
            Release { version: "1.34.4", origin: KUBERNETES },
            Release { version: "1.36.3", origin: KUBERNETES },
        ],
        on_request: true,
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
        on_request: false,
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
        on_request: false,
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
        on_request: false,
    },
];

const KUBERNETES: Origin = Origin::Go(Go {
    package: "k8s.io/kubernetes/cmd/kube-apiserver",
    version_variable: Some("k8s.io/component-base/version.gitVersion"),
});

const fn go(package: &'static str) -> Origin {
    Origin::Go(Go { package, version_variable: None })
}

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
