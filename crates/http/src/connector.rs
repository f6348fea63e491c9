use std::{future::Future, pin::Pin, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};
use tower_sd::{BoxError, Instance};

use crate::io::Io;

/// Opens the byte stream that a connection to an instance runs on.
///
/// For proxies, simulated networks and sockets with options of their own; set by
/// [`HttpFactory::connector`](crate::HttpFactory::connector), which speaks TLS over the stream where it is configured. An
/// async closure from an [`Instance`] to a stream is one.
///
/// # Contract
///
/// The future is dropped after [`connect_timeout`](crate::HttpFactory::connect_timeout), and its error counts as a refused
/// connect: no request was spent on it.
pub trait Connector: Send + Sync + 'static {
    /// The stream.
    type Stream: AsyncRead + AsyncWrite + Send + 'static;

    /// Connects to `instance`.
    ///
    /// # Errors
    ///
    /// Any; it becomes the source of an [`HttpError`](crate::HttpError) of the kind `Connect`.
    fn connect(
        &self,
        instance: Instance,
    ) -> impl Future<Output = Result<Self::Stream, BoxError>> + Send;
}

impl<F, Fut, S> Connector for F
where
    F: Fn(Instance) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<S, BoxError>> + Send,
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    type Stream = S;

    fn connect(&self, instance: Instance) -> impl Future<Output = Result<S, BoxError>> + Send {
        self(instance)
    }
}

/// Any [`Connector`].
pub(crate) type AnyConnector = Arc<dyn DynConnector>;

type Connecting<'a> = Pin<Box<dyn Future<Output = Result<Io, BoxError>> + Send + 'a>>;

/// [`Connector`] as an object.
pub(crate) trait DynConnector: Send + Sync {
    fn connect(&self, instance: &Instance) -> Connecting<'_>;
}

impl<C: Connector> DynConnector for C {
    fn connect(&self, instance: &Instance) -> Connecting<'_> {
        let connecting = Connector::connect(self, instance.clone());
        Box::pin(async move { Ok(Io::Other(Box::pin(connecting.await?))) })
    }
}
