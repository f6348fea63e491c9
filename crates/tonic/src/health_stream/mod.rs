//! The stream of an instance's health: `grpc.health.v1`.

mod message;

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::{select, sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, body::Body, client::Grpc};
use tonic_prost::ProstCodec;
use tower_sd_balance::{Backoff, Shutdown, TaskGroup};
use tower_sd_http::HttpEndpoint;

use self::message::{HealthCheckRequest, HealthCheckResponse, SERVING, WATCH};
use crate::{
    GrpcEndpoint,
    health::{Answer, Health},
};

/// Follows the health of one instance; the stream ends with the result.
pub(crate) fn watch(http: HttpEndpoint<Body>, service: &str, tasks: &TaskGroup) -> Health {
    let (sender, answers) = watch::channel(Answer::None);
    let gone = CancellationToken::new();
    let watching = Watching {
        client: Grpc::new(GrpcEndpoint::new(http, None)),
        service: service.to_owned(),
        answers: sender,
    };
    let stop = gone.clone().drop_guard();
    tasks.spawn(|stop| watching.until(stop, gone));
    Health::new(answers, stop)
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

/// Between streams: an instance that restarts is probed again soon, one that stays away is the
/// endpointer's to watch.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);
