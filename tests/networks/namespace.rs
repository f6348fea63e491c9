//! A network namespace for one test, and hosts in it that can vanish.

use std::{
    env,
    ffi::OsStr,
    process::{Command, Output},
};

/// A host of the namespace, whose packets can be dropped.
pub(crate) struct Host(&'static str);

/// Whether the calling test is in a namespace of its own; if not, runs `test` in one.
///
/// `test` is the name of the calling test, as the test runner prints it.
pub(crate) fn is_inside(test: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        ip(["link", "set", "lo", "up"]);
        return true;
    }
    let test_binary = env::current_exe().expect("a path");
    let probe = unshare(["ip", "link", "set", "lo", "up"]).output();
    assert!(
        probe.as_ref().is_ok_and(|probe| probe.status.success()),
        "no network namespace: {probe:?}\n\
         This test needs `unshare` and `ip` (Debian: `apt install util-linux iproute2`), and \
         namespaces for its user: `sysctl -w user.max_user_namespaces=1000`, on Ubuntu also \
         `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
    );
    let mut command = unshare([test_binary.as_os_str()]);
    command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let inside = command.output().expect("it was started before");
    let printed = printed(&inside);
    assert!(inside.status.success(), "{printed}");
    assert!(printed.contains("1 passed"), "no test of the name {test}: {printed}");
    false
}

impl Host {
    /// Adds a host with this IPv4 address.
    pub(crate) fn new(address: &'static str) -> Self {
        let host = Self(address);
        host.add_address();
        host
    }

    /// Drops every packet to and from the host; no peer is notified.
    pub(crate) fn vanish(&self) {
        ip(["address", "delete", &self.network(), "dev", "lo"]);
        ip(["route", "add", "blackhole", &self.network()]);
    }

    /// Ends [`vanish`](Self::vanish).
    pub(crate) fn come_back(&self) {
        ip(["route", "delete", "blackhole", &self.network()]);
        self.add_address();
    }

    fn add_address(&self) {
        ip(["address", "add", &self.network(), "dev", "lo"]);
    }

    fn network(&self) -> String {
        format!("{}/32", self.0)
    }
}

fn unshare<S: AsRef<OsStr>>(program: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "--"]).args(program);
    command
}

fn ip<const N: usize>(args: [&str; N]) {
    let output = Command::new("ip").args(args).output().expect("`ip` was found before");
    assert!(output.status.success(), "ip {args:?}: {}", printed(&output));
}

fn printed(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}

/// Set in the namespace.
const INSIDE: &str = "TOWER_SD_TEST_NAMESPACE";
