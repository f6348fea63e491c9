use tower_sd_core::{RegistryUrl, Result};

use crate::{BACKEND, EtcdConfig, config::User};

impl EtcdConfig {
    /// Reads the settings from a URL: `etcd://h1:2379,h2,[::1]:2379/prefix?ttl=15s`.
    ///
    /// The port is 2379 unless given. The path is the prefix of all services; without one, that is
    /// the default. The service is not part of the URL. Options, in the grammar of [`RegistryUrl`]:
    ///
    /// | option | sets |
    /// |---|---|
    /// | `ttl` | the TTL of registrations |
    /// | `connect-timeout`, `request-timeout`, `ping-interval` | the field of that name |
    /// | `tls`, `ca-file`, `ca-path`, `cert-file`, `key-file` | [`tls`](Self::tls) |
    /// | `server-name`, `verify` | [`tls`](Self::tls) |
    /// | `user` with `password-file` | [`user`](Self::user_from_file) |
    ///
    /// ```
    /// use tower_sd::etcd::EtcdConfig;
    ///
    /// let config = EtcdConfig::from_url("etcd://10.0.0.1,10.0.0.2:2380/shop?ttl=30s")?;
    /// assert_eq!(config.endpoints, ["10.0.0.1:2379", "10.0.0.2:2380"]);
    /// assert_eq!(config.prefix, "shop");
    /// # Ok::<(), tower_sd::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work; for an unknown option, with those that there are;
    /// for a user or password in the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let mut url = RegistryUrl::parse(BACKEND, url)?;
        let mut config = Self::new(url.addresses(DEFAULT_PORT));
        match url.path().trim_end_matches('/') {
            "" => {}
            prefix => prefix.clone_into(&mut config.prefix),
        }
        config.registry.ttl = url.duration("ttl")?;
        for (option, field) in [
            ("connect-timeout", &mut config.connect_timeout),
            ("request-timeout", &mut config.request_timeout),
            ("ping-interval", &mut config.ping_interval),
        ] {
            *field = url.duration(option)?.unwrap_or(*field);
        }
        config.tls = url.tls()?;
        config.user = url.user()?.map(|(name, file)| User::from_file(name, file));
        url.finish()?;
        // Refuses settings now that a client would refuse; that shuffles the endpoints.
        let _config = config.clone().validated()?;
        Ok(config)
    }
}

/// IANA's, for etcd clients.
const DEFAULT_PORT: u16 = 2379;

#[cfg(test)]
mod tests;
