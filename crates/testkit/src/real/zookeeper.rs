use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    path::Path,
    process::Command,
    time::Duration,
};

use futures_util::{FutureExt, future::try_join_all};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Server;
use crate::{
    loopback::{free_ports, own_address},
    proxy::Proxy,
    servers::ServerBinary,
};

/// A ZooKeeper server, alone or a member of an ensemble.
#[derive(Debug)]
pub struct ZooKeeper {
    server: Server,
    address: SocketAddr,
}

/// How to start a [`ZooKeeper`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ZooKeeperConfig {
    binary: ServerBinary,
    lines: Vec<String>,
    properties: Vec<String>,
}

/// Servers of one ensemble, each on an address of its own.
#[derive(Debug)]
#[non_exhaustive]
pub struct ZooKeeperEnsemble {
    /// The members.
    pub members: Vec<ZooKeeper>,
    /// Every way between the first member and the others, if it was started so.
    pub links: Vec<Proxy>,
}

/// Where a member will be.
struct Place {
    id: usize,
    ip: Ipv4Addr,
    client: u16,
    peers: u16,
    election: u16,
}

impl ZooKeeper {
    /// Starts a server.
    ///
    /// # Errors
    ///
    /// It does not become ready; with its output.
    pub async fn start(config: ZooKeeperConfig) -> io::Result<Self> {
        let ip = own_address();
        let [port] = free_ports(ip)?;
        Self::start_at((ip, port).into(), 0, config).await
    }

    async fn start_at(address: SocketAddr, id: usize, config: ZooKeeperConfig) -> io::Result<Self> {
        let server = Server::start(
            move |data| config.command(data, address, id),
            move || async move { mode(address).await.is_ok() }.boxed(),
        );
        Ok(Self { server: server.await?, address })
    }

    /// Where its clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its answer to a command of four letters, such as `wchs`.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub async fn command(&self, letters: &str) -> io::Result<String> {
        four_letters(self.address, letters).await
    }
}

/// Stop, kill, suspend, restart.
impl Deref for ZooKeeper {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl ZooKeeperEnsemble {
    /// Starts an ensemble of this many members.
    ///
    /// # Errors
    ///
    /// A member does not become ready; with its output.
    pub async fn start(config: ZooKeeperConfig, n_members: usize) -> io::Result<Self> {
        let places = Place::of_all(n_members)?;
        let lines: Vec<String> = places.iter().map(Place::line).collect();
        let members = places.iter().map(|place| place.start(&config, lines.clone()));
        Ok(Self { members: try_join_all(members).await?, links: Vec::new() })
    }

    /// Starts an ensemble whose first member can be cut off by its `links`.
    ///
    /// Of ZooKeeper 3.4 alone: later ones report their own addresses to each other.
    ///
    /// # Errors
    ///
    /// A member does not become ready; with its output.
    pub async fn start_linked(config: ZooKeeperConfig, n_members: usize) -> io::Result<Self> {
        let places = Place::of_all(n_members)?;
        let (mut links, mut linked) = (Vec::new(), Vec::new());
        for place in &places {
            let ip = own_address();
            let peers = Proxy::listen(ip, (place.ip, place.peers).into(), ELECTED).await?;
            let election = Proxy::listen(ip, (place.ip, place.election).into(), ELECTED).await?;
            let (peers_port, election_port) = (peers.address().port(), election.address().port());
            linked.push(format!("server.{}={ip}:{peers_port}:{election_port}", place.id));
            links.extend([peers, election]);
        }
        let members = places.iter().map(|member| {
            let seen = places.iter().zip(&linked).map(|(other, linked)| {
                let is_direct = (other.id == 1) == (member.id == 1);
                if is_direct { other.line() } else { linked.clone() }
            });
            member.start(&config, seen.collect())
        });
        Ok(Self { members: try_join_all(members).await?, links })
    }

    /// The addresses of all members, as `host:port`.
    pub fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.address.to_string()).collect()
    }

    /// The member that leads now, if one does.
    pub async fn leader(&self) -> Option<&ZooKeeper> {
        for member in &self.members {
            if mode(member.address).await.is_ok_and(|mode| mode == "leader") {
                return Some(member);
            }
        }
        None
    }
}

impl Place {
    fn of_all(n_members: usize) -> io::Result<Vec<Self>> {
        let one = |id| {
            let ip = own_address();
            let [client, peers, election] = free_ports(ip)?;
            Ok(Self { id, ip, client, peers, election })
        };
        (1..=n_members).map(one).collect()
    }

    /// By which other members find it.
    fn line(&self) -> String {
        format!("server.{}={}:{}:{}", self.id, self.ip, self.peers, self.election)
    }

    /// `seen` has a line for each member.
    async fn start(&self, config: &ZooKeeperConfig, seen: Vec<String>) -> io::Result<ZooKeeper> {
        let config = config.clone().lines(["initLimit=20", "syncLimit=8"]).lines(seen);
        ZooKeeper::start_at((self.ip, self.client).into(), self.id, config).await
    }
}

impl ZooKeeperConfig {
    /// A server with ticks of 500 ms, so that sessions may end after 1 s.
    ///
    /// It does not wait for the disk.
    pub fn new(binary: ServerBinary) -> Self {
        Self { binary, lines: Vec::new(), properties: Vec::new() }
    }

    /// Adds lines to its configuration.
    pub fn lines<T: Into<String>>(mut self, lines: impl IntoIterator<Item = T>) -> Self {
        self.lines.extend(lines.into_iter().map(Into::into));
        self
    }

    /// Adds a property of Java, such as `jute.maxbuffer=100000`.
    pub fn property(mut self, property: &str) -> Self {
        self.properties.push(format!("-D{property}"));
        self
    }

    /// Uses Netty, which TLS needs, of the archives beside the server's.
    pub fn netty(mut self) -> Self {
        let folder = self.binary.path.parent().unwrap_or(&self.binary.path).join("../share/java");
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        let archives = files.map(|file| file.path().display().to_string());
        let netty: Vec<_> = archives.filter(|path| path.contains("/netty-")).collect();
        self.properties.push(format!("-Xbootclasspath/a:{}", netty.join(":")));
        self.lines(["serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory"])
    }

    fn command(&self, data: &Path, address: SocketAddr, id: usize) -> Command {
        let (ip, port) = (address.ip(), address.port());
        let mut text = format!(
            "tickTime=500\nmaxSessionTimeout=60000\nmaxClientCnxns=0\nforceSync=no\n\
             4lw.commands.whitelist=*\ndataDir={}\nclientPort={port}\nclientPortAddress={ip}\n",
            data.display()
        );
        for line in &self.lines {
            text.push_str(&format!("{line}\n"));
        }
        let file = data.join("zoo.cfg");
        // What cannot be written is reported by the server, which then finds no file.
        drop(fs::write(&file, text));
        if id > 0 {
            drop(fs::write(data.join("myid"), id.to_string()));
        }
        let mut command = Command::new(&self.binary.path);
        command.arg(&file).args(&self.properties);
        command
    }
}

/// `standalone`, `leader` or `follower`, of a server that serves.
async fn mode(address: SocketAddr) -> io::Result<String> {
    let answer = four_letters(address, "srvr").await?;
    let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
    mode.map(str::to_owned).ok_or_else(|| io::Error::other("it does not serve"))
}

async fn four_letters(address: SocketAddr, letters: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(letters.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A follower begins another election when a new leader closes its connection, but not when it does
/// not listen yet; and the leader waits for that follower until `initLimit`.
const ELECTED: Duration = Duration::from_secs(2);
