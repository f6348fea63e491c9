//! The stream of an instance's health: `grpc.health.v1`.

mod message;

use std::{sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use tokio::{
    select,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, body::Body, client::Grpc};
use tonic_prost::ProstCodec;
use tower_sd_balance::{Backoff, NotServing, Shutdown, TaskGroup};
use tower_sd_http::HttpEndpoint;

use self::message::{HealthCheckRequest, HealthCheckResponse, SERVING, WATCH};
use crate::{
    GrpcEndpoint,
    health::{Answer, Health},
};

/// Follows the health of one instance; the stream ends with the result.
pub(crate) fn watch(
    http: HttpEndpoint<Body>,
    service: &str,
    age: Option<Duration>,
    tasks: &TaskGroup,
) -> Health {
    let (sender, answers) = watch::channel(Answer::Connecting);
    let gone = CancellationToken::new();
    let watching = Watching {
        client: Grpc::new(GrpcEndpoint::new(http, None)),
        service: service.to_owned(),
        age: age.map_or(Duration::MAX, |age| age.max(LEAST_AGE)),
        answers: sender,
        backoff: Backoff::new(FIRST_PAUSE, MAX_PAUSE),
    };
    let stop = gone.clone().drop_guard();
    tasks.spawn(|stop| watching.until(stop, gone));
    Health::new(answers, stop)
}

struct Watching {
    client: Grpc<GrpcEndpoint>,
    service: String,
    /// Of one stream.
    age: Duration,
    answers: watch::Sender<Answer>,
    backoff: Backoff,
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

    async fn run(&mut self) {
        loop {
            // Anew without a pause, with the last answer: a stream that never ended would keep its
            // connection open beyond its age, at the instance that was there first.
            let Ok(status) = timeout(self.age, self.follow()).await else {
                continue;
            };
            if status.code() == Code::Unimplemented {
                // It has no health service, or a proxy before it no route: that may come.
                self.answers.send_replace(Answer::Serving);
                sleep(self.age).await;
                continue;
            }
            tracing::debug!(service = %self.service, %status, "health stream ended");
            self.answers.send_if_modified(|answer| {
                let is_missing = answer.is_missing();
                if is_missing {
                    *answer = Answer::NotServing(status);
                }
                is_missing
            });
            sleep(self.backoff.next_pause()).await;
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
        self.answers.send_if_modified(|answer| {
            let is_first = matches!(answer, Answer::Connecting);
            if is_first {
                *answer = Answer::Connected;
            }
            is_first
        });
        let request = Request::new(HealthCheckRequest { service: self.service.clone() });
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let path = PathAndQuery::from_static(WATCH);
        let mut stream = self.client.server_streaming(request, path, codec).await?.into_inner();
        while let Some(HealthCheckResponse { status }) = stream.message().await? {
            self.backoff.succeeded();
            self.answers.send_replace(match status {
                SERVING => Answer::Serving,
                _ => Answer::NotServing(not_serving()),
            });
        }
        Ok(())
    }
}

fn not_serving() -> Status {
    let mut status = Status::unavailable("the instance is not serving");
    status.set_source(Arc::new(NotServing));
    status
}

/// Enough to connect and to be answered.
const LEAST_AGE: Duration = Duration::from_secs(1);
/// Between streams: an instance that restarts is probed again soon, one that stays away is the
/// endpointer's to watch.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);
