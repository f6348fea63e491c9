use std::{net::SocketAddr, time::Duration};

/// Which name servers are asked, and how.
///
/// ```
/// use tower_sd_dns::{DnsConfig, Transport};
///
/// let consul = DnsConfig::new(["127.0.0.1:8600".parse()?]).transport(Transport::TcpFirst);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DnsConfig {
    /// The name servers. Default: none, which means those of the system (`/etc/resolv.conf`), looked at again at most
    /// once a second. Its search list is not used: every name is taken as complete.
    pub servers: Vec<SocketAddr>,
    /// How they are asked. Default: UDP first.
    pub transport: Transport,
    /// How long one server has for one answer, over UDP with its repetitions or over TCP with the connecting; a question
    /// that has 32 others before it waits for its turn, as long again at most. Default 2 s: four times what a recursive
    /// server usually needs for a name that it has to find out, and short enough for three servers within the loop's
    /// bound of 30 s.
    pub timeout: Duration,
}

/// How name servers are asked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Transport {
    /// UDP with EDNS (1232 bytes), and TCP when the answer says that it was truncated.
    #[default]
    UdpFirst,
    /// TCP for every question. For Consul, which truncates an answer over UDP without saying so: of 60 instances it gives
    /// 19 with 1232 bytes, others every time. For the same reason there is no way back to UDP.
    TcpFirst,
}

impl DnsConfig {
    /// The defaults, with these name servers; with none, those of the system.
    #[must_use]
    pub fn new(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            servers: servers.into_iter().collect(),
            transport: Transport::default(),
            timeout: Duration::from_secs(2),
        }
    }

    /// Sets [`transport`](Self::transport).
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// The system's name servers.
impl Default for DnsConfig {
    fn default() -> Self {
        Self::new([])
    }
}
