use std::{fmt, marker::PhantomData, sync::Arc};

use http::uri::Authority;
use tower_sd::{BoxError, Error, ErrorKind, Factory, Instance};
use tower_sd_core::Tasks;

use crate::{
    Connector, HttpEndpoint, ToBody,
    connector::AnyConnector,
    host::HostPolicy,
    pool::{Pool, Settings, Target},
    tls::Secured,
};

mod settings;

/// Makes an [`HttpEndpoint`] of each instance: HTTP/1.1 or HTTP/2, over TCP or TLS.
///
/// Hand it to an `Endpointer`. Generic in the request body, which the first request decides; clones share everything,
/// so keep one to [`close`](Self::close) it.
///
/// ```
/// use std::time::Duration;
/// use tower_sd_http::{HostPolicy, HttpFactory};
///
/// let factory: HttpFactory<String> = HttpFactory::new()
///     .connect_timeout(Duration::from_millis(300))
///     .host(HostPolicy::Instance);
/// ```
pub struct HttpFactory<B> {
    settings: Settings,
    host: HostPolicy,
    secured: Option<Secured>,
    connector: Option<AnyConnector>,
    tasks: Tasks,
    body: PhantomData<fn(B)>,
}

impl<B> HttpFactory<B> {
    /// A factory with the defaults that its setters name.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens connections by `connector` in place of TCP: through a proxy, over a simulated network, with socket options.
    ///
    /// TLS is spoken over its streams where [`tls`](Self::tls) is configured.
    ///
    /// ```
    /// use tokio::net::TcpStream;
    /// use tower_sd::{BoxError, Instance};
    /// use tower_sd_http::HttpFactory;
    ///
    /// let factory: HttpFactory<String> = HttpFactory::new().connector(|instance: Instance| async move {
    ///     let stream = TcpStream::connect((instance.host(), instance.port())).await?;
    ///     stream.set_nodelay(true)?;
    ///     Ok::<_, BoxError>(stream)
    /// });
    /// ```
    #[must_use]
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Some(Arc::new(connector));
        self
    }

    /// Whether its endpoints speak TLS.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.secured.is_some()
    }

    /// Closes the connections of every endpoint it made, whatever they carry, and waits until they are.
    ///
    /// Not needed for cleaning up: connections close with their endpoints. Needed to know that they have.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the connections still close; only the waiting is lost.
    pub async fn close(&self) {
        self.tasks.close().await;
    }
}

impl<B> HttpFactory<B> {
    #[cfg(feature = "tls")]
    pub(crate) fn secured(mut self, secured: Option<Secured>) -> Self {
        self.secured = secured;
        self
    }
}

impl<B: Send + 'static> HttpFactory<B> {
    /// Connects to nothing yet.
    pub(crate) fn endpoint(&self, instance: &Instance) -> Result<HttpEndpoint<B>, BoxError> {
        let ours = if self.is_secured() { "https" } else { "http" };
        if let Some(theirs) = instance.scheme()
            && !theirs.eq_ignore_ascii_case(ours)
        {
            let message = format!("speaks {ours}, and the instance wants {theirs}");
            return Err(refused(instance, message).into());
        }
        let address = instance.to_string();
        let authority = Authority::try_from(address.as_str())
            .map_err(|error| refused(instance, "its host is no host").with_source(error))?;
        let target = Target {
            instance: instance.clone(),
            address: address.into(),
            authority,
            host_policy: self.host,
            secured: self.secured.clone(),
            connector: self.connector.clone(),
        };
        Ok(HttpEndpoint::new(Pool::new(target, self.settings, self.tasks.clone())))
    }
}

impl<B: Send + 'static> Factory for HttpFactory<B> {
    type Service = HttpEndpoint<B>;
    type Hold = ToBody;

    async fn make(&self, instance: Instance) -> Result<HttpEndpoint<B>, BoxError> {
        self.endpoint(&instance)
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
            secured: self.secured.clone(),
            connector: self.connector.clone(),
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
            secured: None,
            connector: None,
            tasks: Tasks::new(),
            body: PhantomData,
        }
    }
}

impl<B> fmt::Debug for HttpFactory<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFactory")
            .field("settings", &self.settings)
            .field("host", &self.host)
            .field("secured", &self.secured)
            .finish_non_exhaustive()
    }
}
