//! A server that runs on threads of its own, so that it can die as a process does.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
    task::JoinHandle,
    time::sleep,
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    Request, Response, Status, Streaming,
    metadata::MetadataMap,
    service::{Routes, RoutesBuilder},
    transport,
};
use tower_sd_balance::Instance;
use tower_sd_http::DeadlineLayer;

use crate::{
    echo::{
        Message,
        echo_server::{Echo, EchoServer},
    },
    message,
};

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) echo: Arc<Behaviour>,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

/// What it does, and what it has seen.
#[derive(Default)]
pub(crate) struct Behaviour {
    /// What unary calls fail with.
    failure: Mutex<Option<Status>>,
    /// Unary calls take half a minute.
    is_hung: AtomicBool,
    /// What each unary call came with.
    seen: Mutex<Vec<MetadataMap>>,
}

type Messages = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_failing(status: Status) -> Self {
        let server = Self::start();
        server.echo.fail_with(Some(status));
        server
    }

    /// With more services than the one.
    pub(crate) fn start_with(add: impl FnOnce(&mut RoutesBuilder)) -> Self {
        Self::start_on(transport::Server::builder(), add)
    }

    /// With settings of its own.
    pub(crate) fn start_on(
        builder: transport::Server,
        add: impl FnOnce(&mut RoutesBuilder),
    ) -> Self {
        Self::serve(add, move |routes, listener, stop| async move {
            let mut builder = builder;
            builder.add_routes(routes).serve_with_incoming_shutdown(listener, stop).await
        })
    }

    /// That ends calls at their deadlines.
    pub(crate) fn start_layered(layer: DeadlineLayer) -> Self {
        let add = |_: &mut RoutesBuilder| {};
        Self::serve(add, move |routes, listener, stop| async move {
            let mut builder = transport::Server::builder().layer(layer);
            builder.add_routes(routes).serve_with_incoming_shutdown(listener, stop).await
        })
    }

    fn serve<Fut>(
        add: impl FnOnce(&mut RoutesBuilder),
        serve: impl FnOnce(Routes, TcpListenerStream, WaitForCancellationFutureOwned) -> Fut
        + Send
        + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<(), transport::Error>> + Send,
    {
        let mut routes = RoutesBuilder::default();
        let echo = Arc::<Behaviour>::default();
        routes.add_service(EchoServer::from_arc(Arc::clone(&echo)));
        add(&mut routes);
        let routes = routes.routes();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let told = stop.clone();
        let serving = runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let listener = TcpListenerStream::new(listener);
            serve(routes, listener, told.cancelled_owned()).await.expect("serves");
        });
        Self { address, echo, stop, serving: Some(serving), runtime: Some(runtime) }
    }

    pub(crate) fn instance(&self) -> Instance {
        Instance::new(self.address.ip().to_string(), self.address.port())
    }

    /// Dies: every connection breaks.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Sends GOAWAY on every connection, answers what it has, and waits until all are gone.
    pub(crate) async fn shut_down(&mut self) {
        self.stop.cancel();
        if let Some(serving) = self.serving.take() {
            serving.await.expect("ends well");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Behaviour {
    pub(crate) fn fail_with(&self, status: Option<Status>) {
        *self.failure.lock().expect("no panic") = status;
    }

    pub(crate) fn hang(&self) {
        self.is_hung.store(true, Relaxed);
    }

    pub(crate) fn seen(&self) -> Vec<MetadataMap> {
        self.seen.lock().expect("no panic").clone()
    }
}

#[tonic::async_trait]
impl Echo for Behaviour {
    type RepeatStream = Messages;
    type ConverseStream = Messages;

    /// `slow` takes half a minute, `work` 20 ms.
    async fn one(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        self.seen.lock().expect("no panic").push(request.metadata().clone());
        if let Some(status) = self.failure.lock().expect("no panic").clone() {
            return Err(status);
        }
        if request.get_ref().text == "slow" || self.is_hung.load(Relaxed) {
            sleep(Duration::from_secs(30)).await;
        }
        if request.get_ref().text == "work" {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Response::new(request.into_inner()))
    }

    async fn collect(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Message>, Status> {
        let mut messages = request.into_inner();
        let mut collected = String::new();
        while let Some(Message { text }) = messages.message().await? {
            collected += &text;
        }
        Ok(Response::new(message(collected)))
    }

    /// As many messages as in the text; `fail` sends one and fails, `fail as set` with the status
    /// of unary calls, `fail immediately` sends none; `open` sends one and stays open.
    async fn repeat(&self, request: Request<Message>) -> Result<Response<Messages>, Status> {
        self.seen.lock().expect("no panic").push(request.metadata().clone());
        let one = || stream::iter([Ok(message("1"))]);
        let failure = || stream::iter([Err(Status::unavailable("as scripted"))]);
        Ok(Response::new(match request.get_ref().text.as_str() {
            "open" => one().chain(stream::pending()).boxed(),
            "fail" => one().chain(failure()).boxed(),
            "fail as set" => {
                let status = self.failure.lock().expect("no panic").clone();
                one().chain(stream::iter(status.map(Err))).boxed()
            }
            "fail immediately" => match self.failure.lock().expect("no panic").clone() {
                Some(status) => stream::iter([Err(status)]).boxed(),
                None => one().boxed(),
            },
            n => {
                let n: u32 = n.parse().map_err(|_cause| Status::invalid_argument("no number"))?;
                stream::iter((1..=n).map(|n| Ok(message(n.to_string())))).boxed()
            }
        }))
    }

    async fn converse(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Messages>, Status> {
        Ok(Response::new(request.into_inner().boxed()))
    }
}
