use std::{env, ffi::OsString};

use tower_sd_core::{Result, url};

use super::{User, ZooKeeperConfig, refused};
use crate::BACKEND;

impl ZooKeeperConfig {
    /// Reads the settings from the environment, as Spring Cloud's client does.
    ///
    /// | variable | sets |
    /// |---|---|
    /// | `SPRING_CLOUD_ZOOKEEPER_CONNECTSTRING` | [`servers`](Self::servers) and chroot |
    /// | `SPRING_CLOUD_ZOOKEEPER_DISCOVERY_ROOT` | [`path`](Self::path) |
    /// | `ZOOKEEPER_USER` with `ZOOKEEPER_PASSWORD` | [`user`](Self::user) |
    /// | `ZOOKEEPER_USER` with `ZOOKEEPER_PASSWORD_FILE` | [`user`](Self::user_from_file) |
    ///
    /// The first one is as in `h1:2181,h2:2181/chroot`, and may have the options of
    /// [`from_url`](Self::from_url). The last three are this crate's own; the file wins over the
    /// password. An empty variable counts as missing.
    ///
    /// # Errors
    ///
    /// `Config`: no server is given; a variable is not UTF-8; a user has no password; or as
    /// [`from_url`](Self::from_url).
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| env::var_os(name))
    }

    pub(super) fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let text = |name| url::variable(BACKEND, name, get(name));
        let Some(servers) = text(SERVERS)? else {
            return Err(refused(format!("{SERVERS} is not set")));
        };
        let mut config = Self::from_url(&format!("{BACKEND}://{servers}"))?;
        if let Some(path) = text("SPRING_CLOUD_ZOOKEEPER_DISCOVERY_ROOT")? {
            config.path = path;
        }
        let password = text("ZOOKEEPER_PASSWORD")?;
        config.user = match (text("ZOOKEEPER_USER")?, text("ZOOKEEPER_PASSWORD_FILE")?, password) {
            (Some(name), Some(path), _) => Some(User::from_file(name, path)),
            (Some(name), None, Some(password)) => Some(User::new(name, password)),
            (Some(_), None, None) => return Err(refused("ZOOKEEPER_USER has no password")),
            (None, ..) => config.user,
        };
        Ok(config)
    }
}

const SERVERS: &str = "SPRING_CLOUD_ZOOKEEPER_CONNECTSTRING";
