//! The health of an instance: `grpc.health.v1`, one stream per instance.

mod message;

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::{
    select,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Status, body::Body, client::Grpc};
use tonic_prost::ProstCodec;
use tower_sd_balance::{Backoff, Shutdown, TaskGroup};
use tower_sd_http::HttpEndpoint;

use self::message::{HealthCheckRequest, HealthCheckResponse, SERVING, WATCH};
use crate::GrpcEndpoint;

/// The health that one instance reports. The stream ends with it.
#[derive(Debug)]
pub(crate) struct Health {
    answers: watch::Receiver<Answer>,
    _stop: DropGuard,
}

#[derive(Clone, Debug)]
enum Answer {
    None,
    Serving,
    NotServing(Status),
}

impl Health {
    pub(crate) fn watch(http: HttpEndpoint<Body>, service: &str, tasks: &TaskGroup) -> Self {
        let (sender, answers) = watch::channel(Answer::None);
        let gone = CancellationToken::new();
        let watching = Watching {
            client: Grpc::new(GrpcEndpoint::new(http, None)),
            service: service.to_owned(),
            answers: sender,
        };
        let stop = gone.clone().drop_guard();
        tasks.spawn(|stop| watching.until(stop, gone));
        Self { answers, _stop: stop }
    }

    /// Waits for the first answer, for [`PATIENCE`] at most.
    pub(crate) async fn first_answer(&self) -> Result<(), Status> {
        let mut answers = self.answers.clone();
        let answered = answers.wait_for(|answer| !matches!(answer, Answer::None));
        match timeout(PATIENCE, answered).await {
            Ok(_) | Err(_) => self.check(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Status> {
        match &*self.answers.borrow() {
            Answer::None => {
                Err(Status::unavailable("the instance does not answer its health check"))
            }
            Answer::NotServing(status) => Err(status.clone()),
            Answer::Serving => Ok(()),
        }
    }
}

struct Watching {
    client: Grpc<GrpcEndpoint>,
    service: String,
    answers: watch::Sender<Answer>,
}

impl Watching {
    async fn until(mut self, stop: Shutdown, gone: CancellationToken) {
        select! {
            biased;
            () = stop.requested() => {}
            () = gone.cancelled() => {}
            () = self.run() => {}
        }
    }

    /// Ends only when the server has no health service.
    async fn run(&mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        loop {
            let status = self.follow().await;
            if status.code() == Code::Unimplemented {
                self.answers.send_replace(Answer::Serving);
                return;
            }
            tracing::debug!(service = %self.service, %status, "health stream ended");
            self.answers.send_if_modified(|answer| match answer {
                Answer::None => {
                    *answer = Answer::NotServing(status);
                    true
                }
                Answer::Serving | Answer::NotServing(_) => false,
            });
            sleep(backoff.next_pause()).await;
        }
    }

    /// Follows one stream to its end, which is always an error: servers keep it open.
    async fn follow(&mut self) -> Status {
        match self.answers_of_one_stream().await {
            Ok(()) => Status::unavailable("the server ended the health stream"),
            Err(status) => status,
        }
    }

    async fn answers_of_one_stream(&mut self) -> Result<(), Status> {
        self.client.ready().await?;
        let request = Request::new(HealthCheckRequest { service: self.service.clone() });
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let path = PathAndQuery::from_static(WATCH);
        let mut stream = self.client.server_streaming(request, path, codec).await?.into_inner();
        while let Some(HealthCheckResponse { status }) = stream.message().await? {
            self.answers.send_replace(match status {
                SERVING => Answer::Serving,
                _ => Answer::NotServing(Status::unavailable("the instance is not serving")),
            });
        }
        Ok(())
    }
}

/// How long an instance may take for its first answer: as long as for a connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between streams: an instance that restarts is probed again soon, one that stays away is the
/// endpointer's to watch.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);
