use std::sync::Arc;

use tower_sd_core::{RegistryUrl, Result};

use crate::{
    Acl, BACKEND, Curator, GoKit, Layout, ServerSet, User, ZooKeeperConfig, config::refused,
};

impl ZooKeeperConfig {
    /// Reads the settings from a URL: `zookeeper://h1:2181,h2:2181/chroot?acl=open`.
    ///
    /// The port is 2181 unless given. The path is the chroot. The service is not part of the URL.
    /// Options, in the grammar of [`RegistryUrl`]:
    ///
    /// | option | sets |
    /// |---|---|
    /// | `path` | [`path`](Self::path) |
    /// | `layout`: `curator`, `go-kit` or `serverset` | [`layout`](Self::layout) |
    /// | `also-read`, several | [`also_read`](Self::also_read) |
    /// | `session-timeout`, `connect-timeout`, `request-timeout` | the field of that name |
    /// | `acl`: `open` or `creator` | [`acl`](Self::acl) |
    /// | `user` with `password-file` | [`user`](Self::user_from_file) |
    /// | `tls`, `ca-file`, `ca-path`, `cert-file`, `key-file` | [`tls`](Self::tls) |
    /// | `server-name`, `verify` | [`tls`](Self::tls) |
    ///
    /// ```
    /// use tower_sd::zookeeper::ZooKeeperConfig;
    ///
    /// let config = ZooKeeperConfig::from_url("zookeeper://10.0.0.1,10.0.0.2:2182/shop?path=/sd")?;
    /// assert_eq!(config.servers, ["10.0.0.1:2181", "10.0.0.2:2182"]);
    /// assert_eq!((&*config.chroot, &*config.path), ("shop", "/sd"));
    /// # Ok::<(), tower_sd::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work; for an unknown option, with those that there are;
    /// for a user or password in the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let mut url = RegistryUrl::parse(BACKEND, url)?;
        let mut config = Self::new(url.addresses(DEFAULT_PORT)).chroot(url.path());
        if let Some(path) = url.text("path")? {
            config.path = path;
        }
        if let Some(name) = url.text("layout")? {
            config.layouts = vec![layout(&name)?];
        }
        for name in url.list("also-read")? {
            config.layouts.push(layout(&name)?);
        }
        for (option, field) in [
            ("session-timeout", &mut config.session_timeout),
            ("connect-timeout", &mut config.connect_timeout),
            ("request-timeout", &mut config.request_timeout),
        ] {
            *field = url.duration(option)?.unwrap_or(*field);
        }
        config.acl = match url.text("acl")?.as_deref() {
            None | Some("open") => Acl::Open,
            Some("creator") => Acl::Creator,
            Some(other) => return Err(refused(format!("acl {other:?} is not open or creator"))),
        };
        config.tls = url.tls()?;
        config.user = url.user()?.map(|(name, file)| User::from_file(name, file));
        url.finish()?;
        // Refuses settings now that a client would refuse.
        let _config = config.clone().validated()?;
        Ok(config)
    }
}

fn layout(name: &str) -> Result<Arc<dyn Layout>> {
    match name {
        "curator" => Ok(Arc::new(Curator)),
        "go-kit" => Ok(Arc::new(GoKit)),
        "serverset" => Ok(Arc::new(ServerSet)),
        other => Err(refused(format!("layout {other:?} is not curator, go-kit or serverset"))),
    }
}

/// ZooKeeper's own.
const DEFAULT_PORT: u16 = 2181;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_option_sets_its_field() {
        let url = "zookeeper://a,[::1]:7/x/y?path=/p&layout=go-kit&also-read=curator,serverset\
                   &session-timeout=10s&connect-timeout=1s&request-timeout=3s&acl=open";
        let config = ZooKeeperConfig::from_url(url).expect("good settings");
        assert_eq!(config.servers, ["a:2181", "[::1]:7"]);
        assert_eq!((&*config.chroot, &*config.path, config.acl), ("x/y", "/p", Acl::Open));
        assert_eq!(format!("{:?}", config.layouts), "[GoKit, Curator, ServerSet]");
        let times = [config.session_timeout, config.connect_timeout, config.request_timeout];
        assert_eq!(times, [10, 1, 3].map(Duration::from_secs));
    }

    #[test]
    fn wrong_settings_are_refused_with_a_reason() {
        for (url, reason) in [
            ("zookeeper://", "no server"),
            ("zookeeper://a?layout=nerve", "nerve"),
            ("zookeeper://a?acl=creator", "needs a user"),
            ("zookeeper://a?user=x", "only work together"),
            ("zookeeper://a?session-timeout=1ms", "between 1 s"),
            ("zookeeper://a?ttl=5s", "session-timeout"),
            ("zookeeper://u:p@a", "logged"),
            ("zookeeper://a?password=x", "password-file"),
            ("zookeeper://a/..", "cannot be the name"),
        ] {
            let error = ZooKeeperConfig::from_url(url).expect_err(url).to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}
