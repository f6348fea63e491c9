use std::{fmt, time::Duration};

use tower::util::Either;
use tower_layer::Layer;
use tower_sd_balance::{
    BalanceLayer, Balancer, Endpointer, EndpointerConfig, HedgePolicy, Instancer, RetryLayer,
    RetryPolicy,
};

use super::Channel;
use crate::{GrpcFactory, GrpcLayer, GrpcProtocol};

/// The settings of a [`Channel`].
///
/// Each setter changes one setting; the others keep their values.
///
/// ```
/// use tower_sd::balance::WeightedRandom;
/// use tower_sd::grpc::Channel;
/// use tower_sd::{FixedInstancer, Instance};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let channel = Channel::builder(FixedInstancer::new([Instance::new("127.0.0.1", 50051)]))
///     .balancer(WeightedRandom::new())
///     .idempotent(["shop.Catalogue", "shop.Orders/Get"])
///     .retry(|policy| policy.max_attempts(2))
///     .factory(|factory| factory.health("shop.Orders"))
///     .build();
/// # let _ = channel;
/// # }
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct ChannelBuilder {
    instancer: Box<dyn Instancer>,
    factory: GrpcFactory,
    endpointer: EndpointerConfig,
    balance: BalanceLayer,
    ready_timeout: Option<Duration>,
    retry: RetryPolicy<GrpcProtocol>,
    hedge: Option<HedgePolicy>,
    grpc: GrpcLayer,
}

impl ChannelBuilder {
    pub(super) fn new(instancer: impl Instancer) -> Self {
        Self {
            instancer: Box::new(instancer),
            factory: GrpcFactory::new(),
            endpointer: EndpointerConfig::new(),
            balance: BalanceLayer::default(),
            ready_timeout: None,
            retry: RetryPolicy::new().protocol(GrpcProtocol::new()),
            hedge: None,
            grpc: GrpcLayer::new(),
        }
    }

    /// Sets the algorithm that picks an instance for each call.
    ///
    /// Defaults to [`LeastLoaded`](tower_sd_balance::LeastLoaded).
    pub fn balancer(self, balancer: impl Balancer) -> Self {
        Self { balance: BalanceLayer::new(balancer), ..self }
    }

    /// Bounds how long a call waits for an instance that takes it.
    ///
    /// Defaults to 1 s, see [`BalanceLayer::ready_timeout`].
    pub fn ready_timeout(self, ready_timeout: Duration) -> Self {
        Self { ready_timeout: Some(ready_timeout), ..self }
    }

    /// Declares unary methods to be idempotent.
    ///
    /// They are repeated after any failure, see [`GrpcLayer::idempotent`].
    pub fn idempotent<M: Into<String>>(mut self, methods: impl IntoIterator<Item = M>) -> Self {
        self.grpc = self.grpc.idempotent(methods);
        self
    }

    /// Ignores the deadline of the request that the caller itself is serving.
    ///
    /// For calls that outlive it; see [`GrpcLayer::without_caller_deadline`].
    pub fn without_caller_deadline(mut self) -> Self {
        self.grpc = self.grpc.without_caller_deadline();
        self.retry = self.retry.without_caller_deadline();
        self
    }

    /// Bounds a whole call: all attempts, the pauses between them, and its streams.
    ///
    /// Defaults to no bound: a call has the deadline that its request sets.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { retry: self.retry.timeout(timeout), ..self }
    }

    /// Bounds one attempt, up to the head of its response.
    ///
    /// It begins when an instance has the call. Many servers send the head with the first message
    /// of a stream. Defaults to no bound.
    pub fn per_try_timeout(self, per_try_timeout: Duration) -> Self {
        Self { retry: self.retry.per_try_timeout(per_try_timeout), ..self }
    }

    /// Changes the retry policy: attempts, backoff, codes. Defaults to sending 3 times.
    pub fn retry(
        self,
        change: impl FnOnce(RetryPolicy<GrpcProtocol>) -> RetryPolicy<GrpcProtocol>,
    ) -> Self {
        Self { retry: change(self.retry), ..self }
    }

    /// Sends a call that has no answer yet to a second instance.
    ///
    /// The first good answer is the caller's. Only calls of [`idempotent`](Self::idempotent)
    /// methods are hedged, from the budget of the retries: see
    /// [`RetryPolicy::hedged`](tower_sd_balance::RetryPolicy::hedged). Defaults to no hedges.
    pub fn hedge(self, hedge: HedgePolicy) -> Self {
        Self { hedge: Some(hedge), ..self }
    }

    /// Changes how connections are made and kept: health checks, connect timeout.
    ///
    /// For TLS and bounds of the pool return a factory [`over`](GrpcFactory::over) an
    /// `HttpFactory`.
    pub fn factory(self, change: impl FnOnce(GrpcFactory) -> GrpcFactory) -> Self {
        Self { factory: change(self.factory), ..self }
    }

    /// Sets how endpoints are created, probed and drained.
    pub fn endpointer(self, config: EndpointerConfig) -> Self {
        Self { endpointer: config, ..self }
    }

    /// The channel.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: it starts the task that follows the instances. And when
    /// the per-try timeout is above the timeout, or a setting of the hedges is out of range, see
    /// [`RetryPolicy::check`](tower_sd_balance::RetryPolicy::check) and
    /// [`HedgePolicy::check`].
    pub fn build(self) -> Channel {
        let endpointer = Endpointer::with_config(&self.instancer, self.factory, self.endpointer);
        let balance = match self.ready_timeout {
            Some(ready_timeout) => self.balance.ready_timeout(ready_timeout),
            None => self.balance,
        };
        let balance = balance.layer(endpointer.clone());
        let (retry, balance) = match self.hedge {
            None => (RetryLayer::new(self.retry), Either::Right(balance)),
            Some(hedge) => {
                let (retry, hedge) = self.retry.hedged(hedge);
                (retry, Either::Left(hedge.layer(balance)))
            }
        };
        let stack = self.grpc.layer(retry.layer(balance));
        Channel { stack, endpointer }
    }
}

impl fmt::Debug for ChannelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBuilder")
            .field("factory", &self.factory)
            .field("endpointer", &self.endpointer)
            .field("balance", &self.balance)
            .field("retry", &self.retry)
            .field("hedge", &self.hedge)
            .finish_non_exhaustive()
    }
}
