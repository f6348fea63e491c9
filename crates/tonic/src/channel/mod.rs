//! The channel to one service, as a generated client takes it.

mod builder;

use std::{
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::util::Either;
use tower_sd_balance::{
    Balance, Endpointer, EndpointerReport, Hedge, Instancer, NoInstances, Retry, RetryFuture,
};
use tower_sd_http::ReplayBody;
use tower_service::Service;

pub use self::builder::ChannelBuilder;
use crate::{Grpc, GrpcBody, GrpcEndpoint, GrpcFuture, GrpcProtocol, InFlightBody};

/// A channel to one service: balanced, retried, and stored under this name.
///
/// Generated clients take it as they take tonic's own channel, with interceptors and streams.
/// Clones share connections and statistics. It is made of the public layers: `GrpcLayer` over
/// `RetryLayer`, with hedges over `HedgeLayer`, over `BalanceLayer` over an `Endpointer` of
/// `GrpcFactory`. It allocates nothing beside them.
///
/// # Defaults
///
/// | | default | reason |
/// |---|---|---|
/// | balancer | [least loaded], per call | a slow or loaded instance gets less |
/// | sent | 3 times, at other instances if there are | two failing instances are survived |
/// | repeated | what no server acted on; else [`idempotent`] methods | calls arrive at most once |
/// | hedged | nothing | it costs load; see [`hedge`](ChannelBuilder::hedge) |
/// | call time | its `grpc-timeout` ([`set_timeout`]), else unbounded | streams, as in grpc-go |
/// | silent connection | pinged after 5 min | the minimum of most gRPC servers |
/// | waiting for an instance | 1 s | longer than a restart takes to be noticed |
///
/// [least loaded]: tower_sd_balance::LeastLoaded
///
/// [`idempotent`]: ChannelBuilder::idempotent
/// [`set_timeout`]: tonic::Request::set_timeout
///
/// # Drop
///
/// With the last clone following ends and idle connections close; calls in flight are finished.
///
/// # Examples
///
/// ```
/// use tower_sd::grpc::Channel;
/// use tower_sd::{FixedInstancer, Instance};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let channel = Channel::new(FixedInstancer::new([Instance::new("127.0.0.1", 50051)]));
/// // let mut greeter = GreeterClient::new(channel);
/// # let _ = channel;
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Channel {
    stack: Grpc<Retry<Balanced, GrpcProtocol>>,
    endpointer: Endpointer<GrpcEndpoint>,
}

/// With hedges, and without.
type Balanced = Either<Hedge<Balance<GrpcEndpoint>, GrpcProtocol>, Balance<GrpcEndpoint>>;

impl Channel {
    /// A channel to the service that `instancer` follows, with the defaults.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: it starts the task that follows the instances.
    pub fn new(instancer: impl Instancer) -> Self {
        Self::builder(instancer).build()
    }

    /// Settings for a channel to the service that `instancer` follows.
    pub fn builder(instancer: impl Instancer) -> ChannelBuilder {
        ChannelBuilder::new(instancer)
    }

    /// Waits until there is an instance that is not known to be down.
    ///
    /// It waits at most for `timeout`.
    ///
    /// # Errors
    ///
    /// Why there is none.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_until_ready(&self, timeout: Duration) -> Result<(), NoInstances> {
        self.endpointer.ready(timeout).await
    }

    /// The state of every endpoint now. Costs a walk over all of them.
    pub fn report(&self) -> EndpointerReport {
        self.endpointer.report()
    }

    /// Stops following, and waits until the calls in flight have ended.
    ///
    /// It sends no more calls, and waits at most for the endpointer's
    /// [`drain_timeout`](tower_sd_balance::EndpointerConfig::drain_timeout). Repeated, it does
    /// nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, only the waiting is lost.
    pub async fn close(&self) {
        self.endpointer.close().await;
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<InFlightBody<GrpcBody>>;
    type Error = Status;
    type Future = GrpcFuture<RetryFuture<Balanced, GrpcProtocol, Request<ReplayBody<Body>>>>;

    /// Always ready: an instance is picked when there is a call.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.stack.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.stack.call(request)
    }
}
