use std::{env, ffi::OsString};

use tower_sd_core::{Result, Secret, TlsConfig, url};

use super::{ConsulConfig, refuse};
use crate::BACKEND;

impl ConsulConfig {
    /// The `CONSUL_*` variables, read as by Consul's own client (`api/api.go`).
    ///
    /// | variable | sets |
    /// |---|---|
    /// | `CONSUL_HTTP_ADDR` | [`address`](Self::address) |
    /// | `CONSUL_HTTP_TOKEN` | [`token`](Self::token) |
    /// | `CONSUL_HTTP_TOKEN_FILE` | [`token_file`](Self::token_file) |
    /// | `CONSUL_HTTP_AUTH` | [`basic_auth`](Self::basic_auth), as `user` or `user:password` |
    /// | `CONSUL_HTTP_SSL` | TLS, whatever the address begins with |
    /// | `CONSUL_CACERT`, `CONSUL_CAPATH` | [`tls`](Self::tls), where TLS is used |
    /// | `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY` | [`tls`](Self::tls), where TLS is used |
    /// | `CONSUL_TLS_SERVER_NAME` | [`tls`](Self::tls), where TLS is used |
    /// | `CONSUL_HTTP_SSL_VERIFY` | [`tls`](Self::tls), where TLS is used |
    /// | `CONSUL_NAMESPACE` | [`namespace`](Self::namespace) |
    /// | `CONSUL_PARTITION` | [`partition`](Self::partition) |
    ///
    /// A variable that is empty counts as missing.
    ///
    /// # Errors
    ///
    /// `Config` for a variable that is not UTF-8, for half of a client certificate, and for a
    /// boolean that is none: Consul's client warns and goes on without TLS.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| env::var_os(name))
    }

    pub(super) fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let text = |name| url::variable(BACKEND, name, get(name));
        let flag = |name| match text(name)? {
            Some(value) => url::boolean(&value)
                .map(Some)
                .ok_or_else(|| refuse(format!("{name}: {value:?} is neither true nor false"))),
            None => Ok(None),
        };
        let mut config = text("CONSUL_HTTP_ADDR")?.map_or_else(Self::default, Self::new);
        config.token = text("CONSUL_HTTP_TOKEN")?.map(Secret::new);
        config.token_file = text("CONSUL_HTTP_TOKEN_FILE")?.map(Into::into);
        config.basic_auth = text("CONSUL_HTTP_AUTH")?.map(|auth| match auth.split_once(':') {
            Some((user, password)) => (user.to_owned(), Secret::new(password)),
            None => (auth, Secret::default()),
        });
        config.namespace = text("CONSUL_NAMESPACE")?;
        config.partition = text("CONSUL_PARTITION")?;
        let roots = [text("CONSUL_CACERT")?, text("CONSUL_CAPATH")?].into_iter().flatten();
        let mut tls = roots.fold(TlsConfig::new(), TlsConfig::with_root);
        tls = match (text("CONSUL_CLIENT_CERT")?, text("CONSUL_CLIENT_KEY")?) {
            (None, None) => tls,
            (Some(chain), Some(key)) => tls.with_identity(chain, key),
            (Some(_), None) => {
                return Err(refuse("CONSUL_CLIENT_CERT is given without CONSUL_CLIENT_KEY".into()));
            }
            (None, Some(_)) => {
                return Err(refuse("CONSUL_CLIENT_KEY is given without CONSUL_CLIENT_CERT".into()));
            }
        };
        if let Some(name) = text("CONSUL_TLS_SERVER_NAME")? {
            tls = tls.with_server_name(name);
        }
        if flag("CONSUL_HTTP_SSL_VERIFY")? == Some(false) {
            tls = tls.danger_accept_invalid_certificates();
        }
        if flag("CONSUL_HTTP_SSL")?.unwrap_or(false) || config.address.starts_with("https://") {
            config.tls = Some(tls);
        }
        Ok(config)
    }
}
