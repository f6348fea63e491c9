use crate::{
    Announcer, Error, ErrorKind, Instance, KeyValue, Registration, RegistryConfig, Result, Source,
};

/// A kind of registry, which a [`Registry`](crate::Registry) is made of.
///
/// # Contract
///
/// - Each call must return immediately, and must perform no I/O: that is the affair of the source
///   and the announcer, which the two loops call with backoff and bounds.
/// - A source or an announcer keeps what it needs of the backend, and ends its I/O when it is
///   dropped.
pub trait Backend: Send + Sync + 'static {
    /// Returns the name for logs and errors: `"consul"`.
    fn name(&self) -> &'static str;

    /// Adapts the settings to the registry, once, when the [`Registry`](crate::Registry) is made.
    ///
    /// A backend fills in what the caller left open (the TTL), and raises or lowers what cannot
    /// work. The pace of a polled source is its own; see
    /// [`ReadResult::refresh_in`](crate::ReadResult::refresh_in). Changes nothing by default.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_sd::discovery::RegistryConfig;
    /// /// A registry whose clients renew every 30 s.
    /// fn adapt(mut config: RegistryConfig) -> RegistryConfig {
    ///     config.ttl.get_or_insert(Duration::from_secs(90));
    ///     config
    /// }
    /// # assert_eq!(adapt(RegistryConfig::default()).ttl, Some(Duration::from_secs(90)));
    /// ```
    fn adapt(&self, config: RegistryConfig) -> RegistryConfig {
        config
    }

    /// Creates the reading half for one service.
    ///
    /// # Errors
    ///
    /// `Config`: no service can have this name.
    fn source(&self, service: &str) -> Result<Box<dyn Source<Item = Instance>>>;

    /// Returns whether clients see an instance of the source.
    ///
    /// All by default; see [`Publisher::wants`](crate::Publisher::wants).
    fn wants(&self, instance: &Instance) -> bool {
        let Instance { .. } = instance;
        true
    }

    /// Creates the writing half for one registration.
    ///
    /// # Errors
    ///
    /// `Config`: the registry refuses such a registration. By default every one: it is read only.
    fn announcer(&self, registration: &Registration) -> Result<Box<dyn Announcer>> {
        let error = Error::new(ErrorKind::Config, self.name(), "register");
        let error = error.with_instance(registration.instance().id().clone());
        Err(error.with_message("the registry is read only"))
    }

    /// Creates a source of one key, or of all keys below a path that ends in a slash.
    ///
    /// # Errors
    ///
    /// `Config`: the path cannot be one. By default every one: the registry stores no keys.
    fn key_value(&self, path: &str) -> Result<Box<dyn Source<Item = KeyValue>>> {
        let message = format!("key {path:?}: the registry has no key-value store");
        Err(Error::new(ErrorKind::Config, self.name(), "follow").with_message(message))
    }
}
