use std::{
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use futures_util::FutureExt;
use tokio::{io::AsyncWriteExt, net::TcpStream, process};

use super::Server;
use crate::{loopback::free_ports, servers::ServerBinary};

/// BIND's `named` with one zone, [`ZONE`](Self::ZONE).
///
/// Every process on loopback may update it.
///
/// It takes no other address of loopback than 127.0.0.1. A name may have any number of records; by
/// default there are at most 100 of a type.
#[derive(Debug)]
pub struct Bind {
    server: Server,
    address: SocketAddr,
    programs: Programs,
}

/// Where one installation of BIND has its parts.
#[derive(Clone, Debug)]
struct Programs {
    named: PathBuf,
    nsupdate: PathBuf,
    /// `LD_LIBRARY_PATH`, for packages that were unpacked into a folder.
    libraries: OsString,
}

impl Bind {
    /// The zone, in which all names are free.
    ///
    /// Its negative TTL is 0.
    pub const ZONE: &str = "lab.test.";

    /// Starts a server whose zone is empty.
    ///
    /// # Errors
    ///
    /// It does not become ready; with its output.
    pub async fn start(binary: &ServerBinary) -> io::Result<Self> {
        let [port] = free_ports(Ipv4Addr::LOCALHOST)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let programs = Programs::of(&binary.path)?;
        let of_server = programs.clone();
        let server = Server::start(
            move |data| of_server.named(data, port),
            move || is_ready(address).boxed(),
        );
        Ok(Self { server: server.await?, address, programs })
    }

    /// Where it answers, UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes these lines to `nsupdate`, as one update of the zone.
    ///
    /// A line is `update add a.lab.test. 60 A 10.0.0.1`. When it returns,
    /// the next question gets the new answer.
    ///
    /// # Errors
    ///
    /// The update is refused, or not answered; with the output of `nsupdate`.
    pub async fn update(&self, lines: &str) -> io::Result<()> {
        let mut child = process::Command::new(&self.programs.nsupdate)
            .env("LD_LIBRARY_PATH", &self.programs.libraries)
            .args(["-t", "5"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let Self { address, .. } = self;
        let (ip, port, zone) = (address.ip(), address.port(), Self::ZONE);
        let script = format!("server {ip} {port}\nzone {zone}\n{lines}\nsend\n");
        if let Some(mut input) = child.stdin.take() {
            input.write_all(script.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if output.status.success() {
            return Ok(());
        }
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(io::Error::other(format!("nsupdate: {errors}\n{lines}")))
    }
}

/// Stop, kill, suspend, restart.
impl Deref for Bind {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Programs {
    /// From `R/usr/sbin/named`, where R is the root or a folder.
    fn of(named: &Path) -> io::Result<Self> {
        let usr = named.parent().and_then(Path::parent);
        let usr = usr.ok_or_else(|| io::Error::other("named is in no usr/sbin"))?;
        let mut libraries = OsString::new();
        for entry in fs::read_dir(usr.join("lib"))? {
            let folder = entry?.path();
            if usr != Path::new("/usr") && folder.to_string_lossy().ends_with("-linux-gnu") {
                libraries = folder.into_os_string();
            }
        }
        Ok(Self { named: named.to_owned(), nsupdate: usr.join("bin/nsupdate"), libraries })
    }

    fn named(&self, data: &Path, port: u16) -> Command {
        // Files that are missing make it end with a sentence that names them.
        let zone = data.join("lab.test.db");
        if !zone.exists() {
            let _written = fs::write(&zone, EMPTY_ZONE);
        }
        let file = data.join("named.conf");
        let _written = fs::write(&file, config(data, port));
        let mut command = Command::new(&self.named);
        command.args(["-f", "-g", "-n", "1", "-c"]).arg(file);
        command.env("LD_LIBRARY_PATH", &self.libraries);
        command
    }
}

fn config(data: &Path, port: u16) -> String {
    let data = data.display();
    format!(
        r#"options {{
  directory "{data}"; pid-file none; session-keyfile none; lock-file none;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion no; dnssec-validation no; notify no; empty-zones-enable no;
}};
controls {{ }};
zone "lab.test" {{ type primary; file "lab.test.db"; allow-update {{ 127.0.0.0/8; }}; max-records-per-type 0; }};
"#
    )
}

async fn is_ready(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

const EMPTY_ZONE: &str = "$TTL 0
@ SOA ns.lab.test. admin.lab.test. 1 3600 600 86400 0
@ NS ns.lab.test.
ns A 127.0.0.1
";
