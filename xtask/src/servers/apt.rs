//! A private apt root, for packages of any Debian suite.
//!
//! It needs no privileges and leaves the machine's own apt alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::table::Debian;
use crate::command::{Result, output, root};

/// Downloads a release's packages and unpacks them; the folder returned lies in `work`.
pub(super) fn fetch(release: &Debian, version: &str, work: &Path) -> Result<PathBuf> {
    let Debian { suite, packages, program, launcher, .. } = release;
    eprintln!("fetching {} {version} of Debian {suite}", packages[0]);
    let archive = archive()?;
    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();

    for folder in ["lists/partial", "cache/archives/partial", "debs", "root"] {
        fs::create_dir_all(work.join(folder))?;
    }
    fs::write(work.join("status"), "")?;
    fs::write(work.join("apt.conf"), config(work))?;
    let source = format!("deb [arch={architecture} signed-by={KEYRING}] {archive} {suite} main\n");
    fs::write(work.join("sources.list"), source)?;

    output(apt_get(work).arg("update"))?;
    let debs = work.join("debs");
    output(apt_get(work).arg("download").args(*packages).current_dir(&debs))?;
    let unpacked = work.join("root");
    for deb in fs::read_dir(&debs)? {
        let deb = deb?.path();
        if architecture == "amd64" {
            verify(release, &deb)?;
        }
        output(Command::new("dpkg").arg("-x").args([&deb, &unpacked]))?;
    }
    if let Some(name) = launcher {
        let program = unpacked.join(program);
        fs::create_dir_all(program.parent().unwrap_or(&unpacked))?;
        fs::copy(root().join("xtask/servers").join(name).join(name), program)?;
    }
    Ok(unpacked)
}

/// The Debian archive this machine uses, from its own sources.
fn archive() -> Result<String> {
    let list = |options: &[&str]| {
        let format = "$(ORIGIN)|$(LABEL)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)";
        output(Command::new("apt-get").arg("indextargets").args(options).args(["--format", format]))
    };
    let found = match archive_by_label(&list(&[])?) {
        // A machine that never ran `apt-get update` has its sources, but no labels yet.
        None => archive_by_name(&list(&["--no-release-info"])?),
        found => found,
    };
    found.ok_or_else(|| "this machine's apt has no Debian archive among its sources".into())
}

fn archive_by_label(targets: &str) -> Option<String> {
    let mut rows = targets.lines().map(fields);
    let row = rows.find(|row| matches!(row, ["Debian", "Debian", _, "main", _]))?;
    Some(row[4].to_owned())
}

fn archive_by_name(targets: &str) -> Option<String> {
    let mut rows = targets.lines().map(fields);
    let row = rows.find(|[_, _, release, component, uri]| {
        let folder = uri.trim_end_matches('/').rsplit('/').next();
        *component == "main"
            && !release.contains(['-', '/'])
            && folder.is_some_and(|it| it == "debian" || it == "debian.list")
    })?;
    Some(row[4].to_owned())
}

/// Missing fields are empty.
fn fields(row: &str) -> [&str; 5] {
    let mut fields = row.splitn(5, '|');
    std::array::from_fn(|_| fields.next().unwrap_or_default())
}

fn apt_get(work: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-qq").arg("-c").arg(work.join("apt.conf"));
    command
}

/// Proxies and the like still come from the machine's own configuration.
fn config(work: &Path) -> String {
    let work = work.display();
    format!(
        r#"Dir::State "{work}";
Dir::State::lists "{work}/lists";
Dir::State::status "{work}/status";
Dir::Cache "{work}/cache";
Dir::Etc::sourcelist "{work}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "3";
Acquire::http::Timeout "30";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
"#
    )
}

fn verify(release: &Debian, deb: &Path) -> Result<()> {
    let name = deb.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_first = name.strip_prefix(release.packages[0]).is_some_and(|rest| rest.starts_with('_'));
    let Some(expected) = release.sha256.filter(|_| is_first) else {
        return Ok(());
    };
    let found = output(Command::new("sha256sum").arg(deb))?;
    if found.starts_with(expected) {
        return Ok(());
    }
    Err(format!("{name} is not the expected package: its sha256sum is {}", found.trim()).into())
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_is_found_by_its_label() {
        let targets = "HashiCorp|HashiCorp|bookworm|main|https://other.example/debian/\n\
                       Debian|Debian-Security|bookworm-security|main|http://a.example/debian-security/\n\
                       Debian|Debian|bookworm|main|http://a.example/debian/\n";
        assert_eq!(archive_by_label(targets).as_deref(), Some("http://a.example/debian/"));
    }

    #[test]
    fn archive_is_found_by_its_name_when_nothing_was_updated() {
        let targets = "$(ORIGIN)|$(LABEL)|bookworm|main|https://other.example/\n\
                       $(ORIGIN)|$(LABEL)|bookworm-security|main|http://a.example/debian-security/\n\
                       $(ORIGIN)|$(LABEL)|bookworm-backports|main|http://c.example/debian/\n\
                       $(ORIGIN)|$(LABEL)|bookworm|contrib|http://b.example/debian/\n\
                       $(ORIGIN)|$(LABEL)|bookworm|main|http://a.example/debian\n";
        assert_eq!(archive_by_label(targets), None);
        assert_eq!(archive_by_name(targets).as_deref(), Some("http://a.example/debian"));
    }

    #[test]
    fn list_of_mirrors_is_an_archive() {
        let targets = "||stable|main|mirror+file:/etc/apt/mirrors/debian.list\n";
        assert_eq!(
            archive_by_name(targets).as_deref(),
            Some("mirror+file:/etc/apt/mirrors/debian.list")
        );
    }

    #[test]
    fn machine_without_debian_has_no_archive() {
        let targets = "Ubuntu|Ubuntu|noble|main|http://a.example/ubuntu/\n";
        assert_eq!(archive_by_label(targets), None);
        assert_eq!(archive_by_name(targets), None);
    }
}
