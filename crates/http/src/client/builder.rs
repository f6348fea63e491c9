use std::{fmt, sync::Arc, time::Duration};

use http::{Request, Response};
use tower_layer::Layer;
use tower_sd_balance::{
    BalanceLayer, Balancer, BoxError, Endpointer, EndpointerConfig, Factory, HedgePolicy,
    Instancer, Protocol, RetryLayer, RetryPolicy,
};
use tower_service::Service;

use super::{Client, RequestBody};
use crate::{HttpFactory, HttpProtocol};

/// The settings of a [`Client`].
///
/// Each setter changes one setting; the others keep their values. `F` is the factory of its
/// endpoints, `P` what a retry reads in requests and responses; neither is part of the client's
/// type.
///
/// ```
/// use std::time::Duration;
///
/// use http::Method;
/// use tower_sd::balance::WeightedRandom;
/// use tower_sd::http::{Client, HostPolicy, HttpProtocol};
/// use tower_sd::{FixedInstancer, Instance};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let client = Client::builder(FixedInstancer::new([Instance::new("127.0.0.1", 8081)]))
///     .balancer(WeightedRandom::new())
///     .timeout(Duration::from_secs(2))
///     .retry(|policy| policy.max_attempts(2).protocol(HttpProtocol::new().methods([Method::GET])))
///     .factory(|factory| factory.host_policy(HostPolicy::Instance).max_idle(10))
///     .build();
/// # let _ = client;
/// # }
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct ClientBuilder<F = HttpFactory<RequestBody>, P = HttpProtocol> {
    instancer: Box<dyn Instancer>,
    factory: F,
    endpointer: EndpointerConfig,
    balance: BalanceLayer,
    ready_timeout: Option<Duration>,
    retry: RetryPolicy<P>,
    hedge: Option<HedgePolicy>,
}

impl ClientBuilder {
    pub(super) fn new(instancer: impl Instancer) -> Self {
        Self {
            instancer: Box::new(instancer),
            factory: HttpFactory::new().read_timeout(READ_TIMEOUT),
            endpointer: EndpointerConfig::new(),
            balance: BalanceLayer::default(),
            ready_timeout: None,
            retry: RetryPolicy::new()
                .protocol(HttpProtocol::new())
                .default_timeouts(PER_TRY_TIMEOUT, TIMEOUT),
            hedge: None,
        }
    }
}

impl<F, P> ClientBuilder<F, P> {
    /// Sets the algorithm that picks an instance.
    ///
    /// Defaults to [`LeastLoaded`](tower_sd_balance::LeastLoaded).
    pub fn balancer(self, balancer: impl Balancer) -> Self {
        Self { balance: BalanceLayer::new(balancer), ..self }
    }

    /// Bounds how long a request waits for an instance that takes it.
    ///
    /// Defaults to 1 s, see [`BalanceLayer::ready_timeout`].
    pub fn ready_timeout(self, ready_timeout: Duration) -> Self {
        Self { ready_timeout: Some(ready_timeout), ..self }
    }

    /// Bounds a whole request, up to the head of its response.
    ///
    /// It covers all attempts and the pauses between them. Defaults to 15 s, as Envoy's routes. The
    /// body is bounded by [`HttpFactory::read_timeout`].
    pub fn timeout(self, timeout: Duration) -> Self {
        self.retry(|policy| policy.timeout_to_head(timeout))
    }

    /// Bounds one attempt, up to the head of its response.
    ///
    /// It begins when an instance has the request. Defaults to 5 s: a third of the whole, so that
    /// each of the three attempts has its share.
    pub fn per_try_timeout(self, per_try_timeout: Duration) -> Self {
        self.retry(|policy| policy.per_try_timeout(per_try_timeout))
    }

    /// Changes the retry policy: attempts, backoff, which requests are repeated.
    ///
    /// Defaults to sending 3 times and [`HttpProtocol`]: requests that were never sent are always
    /// repeated, those that may have been sent only when their method is idempotent.
    pub fn retry<Q>(
        self,
        change: impl FnOnce(RetryPolicy<P>) -> RetryPolicy<Q>,
    ) -> ClientBuilder<F, Q> {
        ClientBuilder {
            instancer: self.instancer,
            factory: self.factory,
            endpointer: self.endpointer,
            balance: self.balance,
            ready_timeout: self.ready_timeout,
            retry: change(self.retry),
            hedge: self.hedge,
        }
    }

    /// Sends a request that has no answer yet to a second instance.
    ///
    /// The first good answer is the caller's. Only what the retry policy may repeat is hedged, from
    /// its budget: see [`RetryPolicy::hedged`](tower_sd_balance::RetryPolicy::hedged). Defaults to
    /// no hedges.
    pub fn hedge(self, hedge: HedgePolicy) -> Self {
        Self { hedge: Some(hedge), ..self }
    }

    /// Changes how connections are made and kept.
    ///
    /// That is TLS, host policy, connector, bounds of the pool, and a layer per endpoint. `change`
    /// may return any other factory of HTTP services. Defaults to an [`HttpFactory`] with a
    /// [`read_timeout`](HttpFactory::read_timeout) of 5 min, Envoy's idle timeout of streams.
    pub fn factory<G>(self, change: impl FnOnce(F) -> G) -> ClientBuilder<G, P> {
        ClientBuilder {
            instancer: self.instancer,
            factory: change(self.factory),
            endpointer: self.endpointer,
            balance: self.balance,
            ready_timeout: self.ready_timeout,
            retry: self.retry,
            hedge: self.hedge,
        }
    }

    /// Sets how endpoints are created, probed and drained.
    pub fn endpointer(self, config: EndpointerConfig) -> Self {
        Self { endpointer: config, ..self }
    }
}

impl<F, P, R> ClientBuilder<F, P>
where
    F: Factory,
    F::Service:
        Service<Request<RequestBody>, Response = Response<R>, Error: Into<BoxError>, Future: Send>,
    R: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    P: Protocol<Request<RequestBody>, Response<R>> + Clone + Send + Sync + 'static,
{
    /// The client.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: it starts the task that follows the instances. And when
    /// the per-try timeout is above the timeout, or a setting of the hedges is out of range, see
    /// [`RetryPolicy::check`](tower_sd_balance::RetryPolicy::check) and
    /// [`HedgePolicy::check`].
    pub fn build(self) -> Client {
        let endpointer = Endpointer::with_config(&self.instancer, self.factory, self.endpointer);
        let balance = match self.ready_timeout {
            Some(ready_timeout) => self.balance.ready_timeout(ready_timeout),
            None => self.balance,
        };
        let balance = balance.layer(endpointer.clone());
        let endpointer = Arc::new(endpointer);
        match self.hedge {
            None => Client::over(RetryLayer::new(self.retry).layer(balance), endpointer),
            Some(hedge) => {
                let (retry, hedge) = self.retry.hedged(hedge);
                Client::over(retry.layer(hedge.layer(balance)), endpointer)
            }
        }
    }
}

impl<F: fmt::Debug, P: fmt::Debug> fmt::Debug for ClientBuilder<F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("factory", &self.factory)
            .field("endpointer", &self.endpointer)
            .field("balance", &self.balance)
            .field("retry", &self.retry)
            .field("hedge", &self.hedge)
            .finish_non_exhaustive()
    }
}

pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);
pub(crate) const PER_TRY_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(300);
