use std::path::PathBuf;

use tower_sd_core::{Result, TlsConfig};

use super::refuse;

/// Settings of TLS as variables and URLs name them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct TlsFiles {
    pub(super) roots: Vec<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    pub(super) server_name: Option<String>,
    pub(super) skip_verify: bool,
}

impl TlsFiles {
    /// The settings; half of a client certificate is an error, with these names for the halves.
    pub(super) fn config(self, certificate: &str, key: &str) -> Result<TlsConfig> {
        let mut tls =
            self.roots.into_iter().map(PathBuf::from).fold(TlsConfig::new(), TlsConfig::with_root);
        let lone = |given, missing| Err(refuse(format!("{given} is given without {missing}")));
        tls = match (self.certificate, self.key) {
            (None, None) => tls,
            (Some(chain), Some(key)) => tls.with_identity(PathBuf::from(chain), PathBuf::from(key)),
            (Some(_), None) => return lone(certificate, key),
            (None, Some(_)) => return lone(key, certificate),
        };
        if let Some(name) = self.server_name {
            tls = tls.with_server_name(name);
        }
        Ok(if self.skip_verify { tls.danger_accept_invalid_certificates() } else { tls })
    }
}
