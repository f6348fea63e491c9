use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use http::uri::Authority;
use tower_sd_balance::{
    ActiveCheck, AddressPolicy, BoxError, Error, ErrorKind, Factory, InFlight, Instance, Observer,
};
use tower_sd_core::TaskGroup;
use tower_sd_net::{Connector, Dialer, Target as Peer, TlsClient};

use crate::{
    HealthPolicy, HttpEndpoint,
    health::check,
    host::HostPolicy,
    pool::{ConnectionLimit, Pool, Settings, Target},
};

mod settings;

/// Makes an [`HttpEndpoint`] of each instance.
///
/// Over HTTP/1.1 or HTTP/2, with or without TLS. An `Endpointer` takes it. The host `unix:/path` of
/// an instance is a socket of this machine. Generic in the request body, which the first request
/// decides. Clones share everything: one that is kept can [`close`](Self::close) all.
///
/// ```
/// use std::time::Duration;
/// use tower_sd::http::{HostPolicy, HttpFactory};
///
/// let factory: HttpFactory<String> = HttpFactory::new()
///     .connect_timeout(Duration::from_millis(300))
///     .host_policy(HostPolicy::Instance);
/// ```
#[must_use]
pub struct HttpFactory<B> {
    settings: Settings,
    host: HostPolicy,
    tls: Option<TlsClient>,
    dialer: Dialer,
    observer: Option<Arc<dyn Observer>>,
    health: Option<HealthPolicy>,
    limit: Option<ConnectionLimit>,
    tasks: TaskGroup,
    body: PhantomData<fn(B)>,
}

impl<B> HttpFactory<B> {
    /// Creates a factory with the defaults that its setters name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the dialer of all connections.
    ///
    /// It has the TCP keep-alive and user timeout, the policy for addresses of host names, and a
    /// [`connector`](Self::connector). Defaults to [`Dialer::new`] with
    /// [`AddressPolicy::default`]: all addresses of a name are raced (RFC 8305), and link-local
    /// ones are denied. Its connect timeout is replaced by
    /// [`connect_timeout`](Self::connect_timeout).
    pub fn dialer(self, dialer: Dialer) -> Self {
        Self { dialer, ..self }
    }

    /// Opens connections by `connector` in place of the operating system.
    ///
    /// Through a proxy, for example, or over a simulated network.
    pub fn connector(self, connector: impl Connector) -> Self {
        Self { dialer: self.dialer.connector(connector), ..self }
    }

    /// Sets TLS for every instance. Defaults to none.
    ///
    /// Certificates must be for the name of
    /// [`TlsConfig::with_server_name`](crate::TlsConfig::with_server_name), usually the service's.
    /// Without one they must be for the host of the instance. An instance of the scheme `http` is
    /// then refused; without TLS, one of the scheme `https` is. A failed handshake is a failed
    /// connect, which costs no request. Files are read again when they change, and reach busy
    /// connections by their [`max_age`](Self::max_age).
    ///
    /// ```
    /// # #[cfg(feature = "tls-ring")] {
    /// use tower_sd::http::{HttpFactory, HttpVersion, TlsClient};
    /// use tower_sd::tls::TlsConfig;
    ///
    /// let tls = TlsConfig::new().with_server_name("arithmetic.internal");
    /// let factory: HttpFactory<String> =
    ///     HttpFactory::new().version(HttpVersion::Http2).tls(TlsClient::new(tls)?);
    /// # }
    /// # Ok::<(), tower_sd::Error>(())
    /// ```
    pub fn tls(self, tls: TlsClient) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Observes the connections that its pools open.
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// Bounds the connections to all instances together.
    ///
    /// Defaults to no bound but those of each instance.
    pub fn connection_limit(self, limit: ConnectionLimit) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Checks its endpoints actively. Defaults to no checks.
    ///
    /// An endpoint that fails is ejected, see [`ActiveCheck`]: it gets no requests while others are
    /// usable. Before the first checks all are used. Factories and clients that are built with
    /// clones of one policy check an instance once for all of them.
    ///
    /// # Panics
    ///
    /// When the settings contradict each other, see [`HealthPolicy::check`].
    pub fn health(mut self, health: HealthPolicy) -> Self {
        if let Err(error) = health.check() {
            panic!("{error}");
        }
        self.health = Some(health);
        self
    }

    /// The age that no connection exceeds, see [`max_age`](Self::max_age).
    pub fn longest_age(&self) -> Option<Duration> {
        self.settings.max_age
    }

    /// Whether its endpoints use TLS.
    pub fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    /// Closes the connections of all its endpoints, and waits until they are closed.
    ///
    /// Requests in flight are aborted. Connections close with their endpoints as well; this method
    /// waits for it.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the connections still close; only the waiting is lost.
    pub async fn close(&self) {
        self.tasks.close().await;
    }
}

impl<B: Send + 'static> HttpFactory<B> {
    /// Connects to nothing yet.
    pub(crate) fn endpoint(&self, instance: &Instance) -> Result<HttpEndpoint<B>, BoxError> {
        let ours = if self.is_secured() { "https" } else { "http" };
        if let Some(theirs) = instance.scheme()
            && !theirs.eq_ignore_ascii_case(ours)
        {
            let message = format!("uses {ours}, and the instance requires {theirs}");
            return Err(refused(instance, message).into());
        }
        let peer = match instance.host().strip_prefix("unix:") {
            Some(path) => Peer::unix(path),
            None => Peer::host(instance.host(), instance.port()),
        };
        let authority = Authority::try_from(peer.authority().as_str())
            .map_err(|error| refused(instance, "its host is no host").with_source(error))?;
        let target = Target {
            address: peer.to_string().into(),
            peer,
            authority,
            host_policy: self.host,
            tls: self.tls.clone(),
            dialer: self.dialer.clone().connect_timeout(self.settings.connect_timeout),
            observer: self.observer.clone(),
            limit: self.limit.clone(),
        };
        InFlight::enable();
        Ok(HttpEndpoint::new(Pool::new(target, self.settings, self.tasks.clone())))
    }
}

impl<B: Send + 'static> Factory for HttpFactory<B> {
    type Service = HttpEndpoint<B>;

    async fn make(&self, instance: Instance) -> Result<HttpEndpoint<B>, BoxError> {
        let endpoint = self.endpoint(&instance)?;
        if let Some(health) = &self.health {
            let checked = endpoint.beside(self.tasks.clone());
            let (health, gone) = ((health.clone(), instance), endpoint.gone());
            let result = ActiveCheck::begin();
            self.tasks.spawn(|stop| check(checked, health, result, (stop, gone)));
        }
        Ok(endpoint)
    }
}

fn refused(instance: &Instance, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, "http", "endpoint")
        .with_instance(instance.id().clone())
        .with_message(message)
}

impl<B> Clone for HttpFactory<B> {
    fn clone(&self) -> Self {
        Self {
            settings: self.settings,
            host: self.host,
            tls: self.tls.clone(),
            dialer: self.dialer.clone(),
            observer: self.observer.clone(),
            health: self.health.clone(),
            limit: self.limit.clone(),
            tasks: self.tasks.clone(),
            body: PhantomData,
        }
    }
}

impl<B> Default for HttpFactory<B> {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            host: HostPolicy::default(),
            tls: None,
            dialer: Dialer::new().addresses(AddressPolicy::default()),
            observer: None,
            health: None,
            limit: None,
            tasks: TaskGroup::new(),
            body: PhantomData,
        }
    }
}

impl<B> fmt::Debug for HttpFactory<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFactory")
            .field("settings", &self.settings)
            .field("host", &self.host)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
