use tower_sd_core::{RegistryUrl, Result};

use crate::{BACKEND, EurekaConfig, EurekaServer, Lookup};

impl EurekaConfig {
    /// Reads the settings from a URL: `eureka://host:8761/eureka?zone=eu-1a`.
    ///
    /// Several hosts are the servers of one registry. The port is 8761 unless given. The path is
    /// the base path of the servers: `eureka` for Spring Cloud's, `eureka/v2` for Netflix's. The
    /// service is not part of the URL. Options, in the grammar of [`RegistryUrl`]:
    ///
    /// | option | sets |
    /// |---|---|
    /// | `zone` | [`zone`](Self::zone) |
    /// | `server-zones` (a list) | the zone of each host, in their order |
    /// | `user` with `password-file` | [`password_file`](Self::password_file) |
    /// | `tls`, `ca-file`, `ca-path`, `cert-file`, `key-file` | [`tls`](Self::tls) |
    /// | `server-name`, `verify` | [`tls`](Self::tls) |
    /// | `ttl` | the TTL of registrations |
    /// | `lookup` (`app`, `vip` or `svip`), `secure`, `prefer-ip` | [`query`](Self::query) |
    /// | `any-status`, `poll` | [`query`](Self::query) |
    ///
    /// ```
    /// use tower_sd::eureka::EurekaConfig;
    ///
    /// let config = EurekaConfig::from_url("eureka://10.0.0.1,10.0.0.2/eureka?zone=eu-1a")?;
    /// assert_eq!(config.servers[1].url, "http://10.0.0.2:8761/eureka");
    /// # Ok::<(), tower_sd::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work; for an unknown option, with those that there are;
    /// for a user or password in the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let mut url = RegistryUrl::parse(BACKEND, url)?;
        let base = url.path().trim_matches('/').to_owned();
        if base.is_empty() {
            let message = "the base path is missing; it is /eureka of Spring Cloud's servers, and \
                           /eureka/v2 of Netflix's";
            return Err(url.refusal(message));
        }
        let tls = url.tls()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let addresses = url.addresses(DEFAULT_PORT).into_iter();
        let servers = addresses.map(|it| EurekaServer::new(format!("{scheme}://{it}/{base}")));
        let mut config = Self { servers: servers.collect(), tls, ..Self::default() };
        let zones = url.list("server-zones")?;
        if !zones.is_empty() && zones.len() != config.servers.len() {
            return Err(url.refusal("option server-zones: one for each host is needed"));
        }
        for (server, zone) in config.servers.iter_mut().zip(zones) {
            server.zone = Some(zone);
        }
        config.zone = url.text("zone")?;
        (config.user, config.password_file) = url.user()?.unzip();
        config.registry.ttl = url.duration("ttl")?;
        config.set_query(&mut url)?;
        url.finish()?;
        config.validate()?;
        Ok(config)
    }

    fn set_query(&mut self, url: &mut RegistryUrl) -> Result<()> {
        let query = &mut self.query;
        query.lookup = match url.text("lookup")?.as_deref() {
            None | Some("app") => Lookup::App,
            Some("vip") => Lookup::Vip,
            Some("svip") => Lookup::SecureVip,
            Some(_) => return Err(url.refusal("option lookup: there are app, vip and svip")),
        };
        query.secure = url.flag("secure")?.unwrap_or_default();
        query.prefer_ip = url.flag("prefer-ip")?.unwrap_or_default();
        query.any_status = url.flag("any-status")?.unwrap_or_default();
        query.poll_interval = url.duration("poll")?.unwrap_or(query.poll_interval);
        Ok(())
    }
}

/// Spring Cloud's.
const DEFAULT_PORT: u16 = 8761;
