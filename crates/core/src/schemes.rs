use std::{fmt, sync::Arc};

use crate::{Error, ErrorKind, Registry, Result, url::is_scheme};

/// The schemes of URLs that name a registry, each with its constructor.
///
/// ```
/// use tower_sd::{MemoryRegistry, Schemes};
///
/// let memory = MemoryRegistry::new();
/// let schemes = Schemes::new().with("memory", move |_url| Ok(memory.clone().into()));
/// assert_eq!(schemes.open("memory:")?.name(), "memory");
/// let error = schemes.open("consul://127.0.0.1").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "registry open: no registry has the scheme \"consul\"; there are static, memory",
/// );
/// # Ok::<(), tower_sd::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Schemes {
    known: Vec<(&'static str, Open)>,
    /// Schemes that are not compiled in, and how to change that.
    missing: Vec<(&'static str, &'static str)>,
}

type Open = Arc<dyn Fn(&str) -> Result<Registry> + Send + Sync>;

impl Schemes {
    /// Creates a list with `static`, the scheme of addresses that are known.
    ///
    /// `static://127.0.0.1:8081,[::1]:8082` is [`Registry::fixed`].
    pub fn new() -> Self {
        Self { known: Vec::new(), missing: Vec::new() }.with("static", Registry::fixed_from_url)
    }

    /// Adds a scheme; of two constructors of one scheme, the later is used.
    pub fn with(
        mut self,
        scheme: &'static str,
        open: impl Fn(&str) -> Result<Registry> + Send + Sync + 'static,
    ) -> Self {
        self.known.retain(|(known, _)| *known != scheme);
        self.known.push((scheme, Arc::new(open)));
        self
    }

    /// Adds a scheme that is not compiled in, and the remedy for its error.
    pub fn without(mut self, scheme: &'static str, remedy: &'static str) -> Self {
        self.missing.push((scheme, remedy));
        self
    }

    /// Creates the registry that a URL names. Reads files, and uses no network.
    ///
    /// # Errors
    ///
    /// `Config` for an unknown scheme, with those that there are, and for settings that cannot
    /// work.
    pub fn open(&self, url: &str) -> Result<Registry> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        if let Some((_, open)) = self.known.iter().find(|(known, _)| *known == scheme) {
            return open(url);
        }
        let known = self.names().collect::<Vec<_>>().join(", ");
        let missing = self.missing.iter().find(|(missing, _)| *missing == scheme);
        let message = match missing {
            Some((_, remedy)) => format!("the scheme {scheme} is not compiled in; {remedy}"),
            None if is_scheme(scheme) && url[scheme.len()..].starts_with("://") => {
                format!("no registry has the scheme {scheme:?}; there are {known}")
            }
            // Not shown: a text that is no URL may be a secret in the wrong place.
            None => format!("not a URL such as scheme://host:port; the schemes are {known}"),
        };
        Err(Error::new(ErrorKind::Config, "registry", "open").with_message(message))
    }

    /// Returns the schemes that are compiled in.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.known.iter().map(|(scheme, _)| *scheme)
    }
}

impl Default for Schemes {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Schemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_no_url_is_not_shown() {
        for text in ["hunter2", "u:hunter2@a", "hunter2@consul://a", "hunter2:a", ""] {
            let error = Schemes::new().open(text).expect_err("no URL").to_string();
            assert!(!error.contains("hunter2") && error.contains("not a URL such as"), "{error}");
        }
        for text in ["static://u:hunter2@a:1", "static://u:hunter2/@a", "static://u:hunter2%40a:1"]
        {
            let error = Schemes::new().open(text).expect_err("a user");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
