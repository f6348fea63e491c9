use std::env;

use tower_sd_core::{Result, Secret};

use super::{ConsulConfig, refuse};

impl ConsulConfig {
    /// What the `CONSUL_*` variables say, read as Consul's own client reads them (`api/api.go`).
    ///
    /// | variable | sets |
    /// |---|---|
    /// | `CONSUL_HTTP_ADDR` | [`address`](Self::address) |
    /// | `CONSUL_HTTP_TOKEN`, `CONSUL_HTTP_TOKEN_FILE` | [`token`](Self::token), [`token_file`](Self::token_file) |
    /// | `CONSUL_HTTP_AUTH` | [`basic_auth`](Self::basic_auth), as `user` or `user:password` |
    /// | `CONSUL_HTTP_SSL`, `CONSUL_HTTP_SSL_VERIFY` | [`enabled`](super::ConsulTls::enabled), the opposite of [`skip_verify`](super::ConsulTls::skip_verify) |
    /// | `CONSUL_CACERT`, `CONSUL_CAPATH` | [`ca_file`](super::ConsulTls::ca_file), [`ca_path`](super::ConsulTls::ca_path) |
    /// | `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY` | [`client_cert`](super::ConsulTls::client_cert), [`client_key`](super::ConsulTls::client_key) |
    /// | `CONSUL_TLS_SERVER_NAME` | [`server_name`](super::ConsulTls::server_name) |
    /// | `CONSUL_NAMESPACE`, `CONSUL_PARTITION` | [`namespace`](Self::namespace), [`partition`](Self::partition) |
    ///
    /// A variable that is empty counts as missing.
    ///
    /// # Errors
    ///
    /// `Config` for a variable that is not UTF-8, and for a boolean that is none: Consul's client warns and goes on
    /// without TLS.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| match env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(cause) => Err(refuse(format!("{name} is not UTF-8")).with_source(cause)),
        })
    }

    pub(super) fn from_variables(
        variable: impl Fn(&'static str) -> Result<Option<String>>,
    ) -> Result<Self> {
        let text = |name| Ok(variable(name)?.filter(|value| !value.is_empty()));
        let flag = |name| match text(name)? {
            Some(value) => boolean(name, &value).map(Some),
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
        config.tls.enabled = flag("CONSUL_HTTP_SSL")?.unwrap_or(false);
        config.tls.skip_verify = !flag("CONSUL_HTTP_SSL_VERIFY")?.unwrap_or(true);
        config.tls.ca_file = text("CONSUL_CACERT")?.map(Into::into);
        config.tls.ca_path = text("CONSUL_CAPATH")?.map(Into::into);
        config.tls.client_cert = text("CONSUL_CLIENT_CERT")?.map(Into::into);
        config.tls.client_key = text("CONSUL_CLIENT_KEY")?.map(Into::into);
        config.tls.server_name = text("CONSUL_TLS_SERVER_NAME")?;
        Ok(config)
    }
}

/// What Go's `strconv.ParseBool` takes.
pub(super) fn boolean(name: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(refuse(format!("{name}: {value:?} is neither true nor false"))),
    }
}
