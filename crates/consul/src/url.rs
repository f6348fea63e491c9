use tower_sd_core::{RegistryUrl, Result};

use crate::{BACKEND, ConsulConfig};

impl ConsulConfig {
    /// Reads the settings from a URL: `consul://host:8500?dc=eu&token-file=/run/token`.
    ///
    /// The port is 8500 unless given. The service is not part of the URL. Options, in the grammar
    /// of [`RegistryUrl`]:
    ///
    /// | option | sets |
    /// |---|---|
    /// | `dc`, `ns`, `partition`, `token-file` | the field of that meaning |
    /// | `tls`, `ca-file`, `ca-path`, `cert-file`, `key-file` | [`tls`](Self::tls) |
    /// | `server-name`, `verify` | [`tls`](Self::tls) |
    /// | `ttl` | the TTL of registrations |
    /// | `tag` (a list), `passing`, `near`, `stale` | [`query`](Self::query) |
    /// | `consistent`, `filter`, `wait` | [`query`](Self::query) |
    ///
    /// ```
    /// use tower_sd::consul::ConsulConfig;
    ///
    /// let config = ConsulConfig::from_url("consul://10.0.0.1?dc=eu")?;
    /// assert_eq!(config.address, "10.0.0.1:8500");
    /// assert_eq!(config.datacenter.as_deref(), Some("eu"));
    /// # Ok::<(), tower_sd::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work; for an unknown option, with those that there are;
    /// for a user, password or token in the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let mut url = RegistryUrl::parse(BACKEND, url)?;
        url.no_path()?;
        let addresses = url.addresses(DEFAULT_PORT);
        let [address] = addresses.as_slice() else {
            let message = "it names one agent, as consul://host:8500 does";
            return Err(url.refusal(message));
        };
        let mut config = Self::new(address);
        config.datacenter = url.text("dc")?;
        config.namespace = url.text("ns")?;
        config.partition = url.text("partition")?;
        config.token_file = url.secret_file("token-file", "token")?;
        config.tls = url.tls()?;
        config.registry.ttl = url.duration("ttl")?;
        config.set_query(&mut url)?;
        url.finish()?;
        config.validate()?;
        Ok(config)
    }

    fn set_query(&mut self, url: &mut RegistryUrl) -> Result<()> {
        let mut query = url.list("tag")?.into_iter().fold(self.query.clone(), crate::Query::tag);
        if url.flag("passing")? == Some(true) {
            query = query.passing();
        }
        query = match (url.flag("stale")?, url.flag("consistent")?) {
            (Some(true), Some(true)) => {
                return Err(url.refusal("options stale and consistent: the two exclude each other"));
            }
            (Some(true), _) => query.stale(),
            (_, Some(true)) => query.consistent(),
            (_, _) => query,
        };
        if let Some(node) = url.text("near")? {
            query = query.near(node);
        }
        if let Some(expression) = url.text("filter")? {
            query = query.filter(expression);
        }
        if let Some(wait) = url.duration("wait")? {
            query = query.wait(wait);
        }
        self.query = query;
        Ok(())
    }
}

const DEFAULT_PORT: u16 = 8500;
