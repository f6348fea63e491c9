use reqwest::Url;
use tower_sd_core::{Result, Secret};

use crate::client::error;

/// Where the agent is, and how to talk to it.
///
/// ```
/// use tower_sd_consul::ConsulConfig;
///
/// let config = ConsulConfig::new("127.0.0.1:8500").token("s3cr3t");
/// assert!(!format!("{config:?}").contains("s3cr3t"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsulConfig {
    /// The agent: `host:port`, `http://host:port`, or either with a path where a proxy serves it under a prefix. Default
    /// `127.0.0.1:8500`.
    pub address: String,
    /// The ACL token, sent in a header only: addresses get logged. Default: none.
    pub token: Option<Secret>,
    /// The datacenter that is read from. Default: the agent's own.
    pub datacenter: Option<String>,
    /// An answer longer than this is an error. Default 16 MiB, some 20 000 instances.
    pub max_body: usize,
}

impl ConsulConfig {
    /// The defaults, with this agent.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            token: None,
            datacenter: None,
            max_body: 16 << 20,
        }
    }

    /// Sets [`token`](Self::token).
    #[must_use]
    pub fn token(mut self, token: impl Into<Secret>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets [`datacenter`](Self::datacenter).
    #[must_use]
    pub fn datacenter(mut self, datacenter: impl Into<String>) -> Self {
        self.datacenter = Some(datacenter.into());
        self
    }

    /// Sets [`max_body`](Self::max_body).
    #[must_use]
    pub fn max_body(mut self, max_body: usize) -> Self {
        self.max_body = max_body;
        self
    }

    pub(crate) fn base_url(&self) -> Result<Url> {
        let address = &self.address;
        let text = match address.contains("://") {
            true => address.clone(),
            false => format!("http://{address}"),
        };
        let url = Url::parse(&text).map_err(|cause| {
            error::config("connect", "address is not host:port or a URL").with_source(cause)
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(error::config(
                "connect",
                "address has a user or password in it; give a token instead",
            ));
        }
        if url.scheme() != "http" {
            let message = format!("address has the unknown scheme {:?}", url.scheme());
            return Err(error::config("connect", message));
        }
        Ok(url)
    }
}

impl Default for ConsulConfig {
    fn default() -> Self {
        Self::new("127.0.0.1:8500")
    }
}
