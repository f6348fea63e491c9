use std::collections::BTreeSet;

use futures_util::{StreamExt, stream, stream::BoxStream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use crate::{Phase, Readiness};

/// The service `grpc.health.v1` of a server, and of the `services` in it: SERVING while it wants requests, else NOT_SERVING.
///
/// The server as a whole is the service `""`, which need not be named. Streams of `Watch` end once they have said that the
/// server drains: they would go on for ever, and hold its end up.
///
/// The protocol: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.
///
/// ```
/// use tonic::transport::Server;
/// use tower_sd_lifecycle::{Readiness, ready_health};
///
/// let readiness = Readiness::new();
/// let router = Server::builder().add_service(ready_health(&readiness, ["shop.Orders"]));
/// # drop(router);
/// ```
pub fn ready_health<I>(readiness: &Readiness, services: I) -> HealthServer<impl Health + use<I>>
where
    I: IntoIterator<Item: Into<String>>,
{
    let services = services.into_iter().map(Into::into).chain([String::new()]).collect();
    HealthServer::new(ReadyHealth { readiness: readiness.clone(), services })
}

struct ReadyHealth {
    readiness: Readiness,
    services: BTreeSet<String>,
}

#[tonic::async_trait]
impl Health for ReadyHealth {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let HealthCheckRequest { service } = request.into_inner();
        match self.services.contains(&service) {
            true => Ok(Response::new(said(status(self.readiness.phase())))),
            false => Err(Status::not_found(format!("there is no service {service:?} here"))),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let is_known = self.services.contains(&request.get_ref().service);
        let readiness = self.readiness.clone();
        let phases = stream::unfold((readiness, None), |(readiness, last)| async move {
            let phase = match last {
                None => readiness.phase(),
                Some(Phase::Starting) => readiness.reached(Phase::Ready).await,
                Some(Phase::Ready) => readiness.reached(Phase::Draining).await,
                Some(Phase::Draining) => return None,
            };
            Some((phase, (readiness, Some(phase))))
        });
        let answers = phases.map(move |phase| match is_known {
            true => Ok(said(status(phase))),
            // The protocol: this is no error, and the stream goes on.
            false => Ok(said(ServingStatus::ServiceUnknown)),
        });
        Ok(Response::new(answers.boxed()))
    }
}

fn status(phase: Phase) -> ServingStatus {
    match phase {
        Phase::Ready => ServingStatus::Serving,
        Phase::Starting | Phase::Draining => ServingStatus::NotServing,
    }
}

fn said(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
