//! A connection to one member.

use std::{sync::Arc, time::Duration};

use etcd_client::{Channel, Client, ConnectOptions};
use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::transport::Endpoint;
use tower::{ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_sd_core::{BoxError, Result};
use tower_sd_net::{Dialer, Target, TlsClient};

use super::{
    credentials::Credentials,
    recorded::{EndReason, Recorded},
};
use crate::{EtcdConfig, error::Failure};

/// A connection to one member. A user of it keeps it open; the next one is made after a failed
/// call.
pub(super) struct Connection {
    client: Client,
    endpoint: String,
    tls: Option<TlsClient>,
    end_reason: EndReason,
}

/// Makes connections.
pub(super) struct Connector {
    dialer: Dialer,
    tls: Option<TlsClient>,
    ping_interval: Duration,
    credentials: Arc<Credentials>,
}

impl Connector {
    /// # Errors
    ///
    /// `Config`: the files of TLS cannot be used.
    pub(super) fn new(config: &EtcdConfig, credentials: &Arc<Credentials>) -> Result<Self> {
        Ok(Self {
            dialer: Dialer::new().connect_timeout(config.connect_timeout),
            tls: config.tls.clone().map(TlsClient::new).transpose()?,
            ping_interval: config.ping_interval,
            credentials: Arc::clone(credentials),
        })
    }

    /// Connects to a member, and authenticates unless there is a token already.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn connect(&self, endpoint: &str) -> Result<Connection, Failure> {
        let end_reason = EndReason::default();
        let client =
            self.client(endpoint, &end_reason).await.map_err(|failure| match end_reason.get() {
                Some(reason) => failure.because(reason),
                None => failure,
            })?;
        let (endpoint, tls) = (endpoint.to_owned(), self.tls.clone());
        let connection = Connection { client, endpoint, tls, end_reason };
        if self.credentials.are_needed() {
            let authenticated = self.credentials.authenticate(&connection.client, 0).await;
            authenticated.map_err(|failure| connection.explain(failure))?;
        }
        Ok(connection)
    }

    async fn client(&self, endpoint: &str, end_reason: &EndReason) -> Result<Client, Failure> {
        let uri = endpoint.parse::<Uri>().map_err(etcd_client::Error::from)?;
        let target = Target::host(uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
        // Its own TLS is left alone: the connector below has it.
        let transport = Endpoint::from_shared(format!("http://{}", target.authority()))?
            .origin(uri)
            .http2_keep_alive_interval(self.ping_interval)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let (dialer, tls, end_reason) = (self.dialer.clone(), self.tls.clone(), end_reason.clone());
        let connector = service_fn(move |_: Uri| {
            let (dialer, tls, target) = (dialer.clone(), tls.clone(), target.clone());
            let end_reason = end_reason.clone();
            async move {
                let connection = dialer.dial(&target, tls.as_ref(), &[b"h2"]).await?;
                Ok::<_, BoxError>(TokioIo::new(Recorded::new(connection.io, end_reason)))
            }
        });
        let channel = transport.connect_with_connector(connector).await?;
        let credentials = Arc::clone(&self.credentials);
        let channel = ServiceBuilder::new()
            .map_request(move |request| credentials.attach(request))
            .service(channel)
            .map_err(Into::into);
        let channel = Channel::Custom(BoxCloneSyncService::new(channel));
        let options = ConnectOptions::new().with_require_leader(true);
        Ok(Client::from_channel(channel, Some(options)).await?)
    }
}

impl Connection {
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Names the member in a failure, and the reason for the end of the connection where it is
    /// known.
    pub(super) fn explain(&self, failure: Failure) -> Failure {
        let failure = match self.end_reason.get() {
            Some(reason) => {
                if let Some(tls) = &self.tls {
                    tls.suspect();
                }
                failure.because(reason)
            }
            None => failure,
        };
        failure.at(&self.endpoint)
    }
}

/// How long a ping may stay unanswered.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer that is read.
///
/// tonic's own limit of 4 MB is below what a page of large values takes. It is also below the first
/// message of a watch that has a thousand revisions to catch up with.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;
