use std::{sync::Arc, time::Duration};

use tonic::body::Body;
use tower_sd_balance::{BoxError, Factory, Instance, TaskGroup};
use tower_sd_http::{HttpFactory, HttpVersion};

use crate::{GrpcEndpoint, health_stream::watch};

/// Creates a [`GrpcEndpoint`] of each instance.
///
/// It uses HTTP/2 without a negotiation, as gRPC servers expect it.
///
/// Takes instances without a scheme and those of the schemes `grpc`, in any case; `http` without
/// TLS, `https` and `grpcs` with it.
///
/// Hand it to an `Endpointer`. Clones share everything, so keep one to [`close`](Self::close) it.
///
/// ```
/// use std::time::Duration;
/// use tower_sd::grpc::GrpcFactory;
///
/// let factory = GrpcFactory::new().connect_timeout(Duration::from_millis(300)).health("shop.Orders");
/// # let _ = factory;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct GrpcFactory {
    http: HttpFactory<Body>,
    health: Option<String>,
    tasks: TaskGroup,
}

impl GrpcFactory {
    /// A factory with the defaults that its setters name, and without health checks.
    pub fn new() -> Self {
        Self::over(HttpFactory::new())
    }

    /// Creates endpoints over those of `http`, in HTTP/2.
    ///
    /// It serves for TLS, a connector, and settings that are not repeated here.
    ///
    /// A silent connection that carries calls is pinged after 5 minutes unless `http` has a
    /// [`keep_alive_interval`](HttpFactory::keep_alive_interval) of its own: most gRPC servers
    /// close a silent connection with more frequent pings.
    pub fn over(http: HttpFactory<Body>) -> Self {
        let http = http.version(HttpVersion::Http2).default_keep_alive_interval(KEEP_ALIVE);
        Self { http, health: None, tasks: TaskGroup::new() }
    }

    /// Bounds the time to connect to an instance, name resolution included.
    ///
    /// Defaults to 1 s: the first lost packet costs that long (RFC 6298), and another instance
    /// answers sooner. For a longer one, raise the endpointer's
    /// [`connect_timeout`](tower_sd_balance::EndpointerConfig::connect_timeout) and the balancer's
    /// [`ready_timeout`](tower_sd_balance::BalanceLayer::ready_timeout) with it: after these, 1 s
    /// each by default, the instance is down and the request has failed.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { http: self.http.connect_timeout(timeout), ..self }
    }

    /// Watches `service` on each instance by `grpc.health.v1`.
    ///
    /// An empty name is the whole server. An instance that does not
    /// report SERVING gets no calls. Defaults to no health check.
    ///
    /// One stream per instance (`Watch`) is open all the time, and begins anew at the age at which
    /// connections [end](HttpFactory::max_age). An instance is not used before it has answered;
    /// within 1 s of its connection it has to, or it is probed again with the pauses of the
    /// endpointer. One that stops serving refuses calls like one that is down, and is used again
    /// within [`max_backoff`](tower_sd_balance::EndpointerConfig::max_backoff) of reporting
    /// SERVING. A server without health service counts as serving, and is queried again at that
    /// age; while a stream is broken the last answer counts.
    pub fn health(self, service: impl Into<String>) -> Self {
        Self { health: Some(service.into()), ..self }
    }

    /// With the scheme of the transport: `grpc` names a protocol and leaves TLS to the factory,
    /// `grpcs` demands it.
    fn as_http(&self, instance: Instance) -> Instance {
        match instance.scheme() {
            Some(scheme) if scheme.eq_ignore_ascii_case("grpc") => {
                instance.with_scheme(if self.http.is_secured() { "https" } else { "http" })
            }
            Some(scheme) if scheme.eq_ignore_ascii_case("grpcs") => instance.with_scheme("https"),
            Some(_) | None => instance,
        }
    }

    /// Closes the connections of all its endpoints, and waits until they are.
    ///
    /// Not needed for cleaning up: connections close with their endpoints. Needed to know that they
    /// have.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the connections still close; only the waiting is lost.
    pub async fn close(&self) {
        self.tasks.close().await;
        self.http.close().await;
    }
}

impl Default for GrpcFactory {
    fn default() -> Self {
        Self::new()
    }
}

impl Factory for GrpcFactory {
    type Service = GrpcEndpoint;

    async fn make(&self, instance: Instance) -> Result<GrpcEndpoint, BoxError> {
        let http = self.http.make(self.as_http(instance)).await?;
        let health = match &self.health {
            None => None,
            Some(service) => {
                // A stream that ended before its connection would begin anew on the same one.
                let health = watch(http.clone(), service, self.http.longest_age(), &self.tasks);
                health.first_answer().await?;
                Some(Arc::new(health))
            }
        };
        Ok(GrpcEndpoint::new(http, health))
    }
}

/// The minimum of gRPC servers by default (gRFC A8:
/// `GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS`).
const KEEP_ALIVE: Duration = Duration::from_secs(5 * 60);
