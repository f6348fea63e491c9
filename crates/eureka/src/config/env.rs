use std::{env, ffi::OsString};

use ::url::Url;
use tower_sd_core::{Result, Secret, url};

use super::{EurekaConfig, EurekaServer, refuse};
use crate::BACKEND;

impl EurekaConfig {
    /// Reads the settings from the environment, as Spring Cloud's client does.
    ///
    /// | variable | sets |
    /// |---|---|
    /// | `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE` | [`servers`](Self::servers), a list of URLs |
    /// | `EUREKA_INSTANCE_METADATAMAP_ZONE` | [`zone`](Self::zone) |
    /// | `EUREKA_USER`, `EUREKA_PASSWORD` | [`user`](Self::user), [`password`](Self::password) |
    /// | `EUREKA_PASSWORD_FILE` | [`password_file`](Self::password_file) |
    ///
    /// A user and password in the first URL that has them are used for all servers; the last three
    /// variables are this crate's own, and win. An empty variable counts as missing.
    ///
    /// # Errors
    ///
    /// `Config` for a variable that is not UTF-8, and for one that is not a URL.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| env::var_os(name))
    }

    pub(super) fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let text = |name| url::variable(BACKEND, name, get(name));
        let mut config = Self::default();
        if let Some(urls) = text(SERVERS)? {
            config.servers.clear();
            for url in urls.split(',').map(str::trim).filter(|url| !url.is_empty()) {
                config.add_with_user(url)?;
            }
        }
        config.zone = text("EUREKA_INSTANCE_METADATAMAP_ZONE")?;
        config.user = text("EUREKA_USER")?.or(config.user);
        config.password = text("EUREKA_PASSWORD")?.map(Secret::new).or(config.password);
        config.password_file = text("EUREKA_PASSWORD_FILE")?.map(Into::into);
        Ok(config)
    }

    /// Adds a server, and takes the user and password out of its URL.
    fn add_with_user(&mut self, url: &str) -> Result<()> {
        let invalid = || refuse(format!("{SERVERS}: not a list of URLs"));
        let mut url = Url::parse(url).map_err(|cause| invalid().with_source(cause))?;
        if !url.username().is_empty() && self.user.is_none() {
            self.user = Some(decoded(url.username()).ok_or_else(invalid)?);
            let password = url.password().map(|password| decoded(password).ok_or_else(invalid));
            self.password = password.transpose()?.map(Secret::new);
        }
        if url.set_username("").is_err() || url.set_password(None).is_err() {
            return Err(invalid());
        }
        self.servers.push(EurekaServer::new(url));
        Ok(())
    }
}

/// Replaces percent-encoded bytes.
fn decoded(text: &str) -> Option<String> {
    let query = format!("v={}", text.replace('+', "%2B"));
    ::url::form_urlencoded::parse(query.as_bytes()).next().map(|(_, value)| value.into_owned())
}

const SERVERS: &str = "EUREKA_CLIENT_SERVICEURL_DEFAULTZONE";
