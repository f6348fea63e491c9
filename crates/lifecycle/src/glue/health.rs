use std::collections::BTreeSet;

use futures_util::{StreamExt, stream, stream::BoxStream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use crate::{Readiness, readiness::State};

/// Returns the service `grpc.health.v1` of a server and its `services`.
///
/// They are SERVING while the server is ready. The server as a whole is the service `""`, which
/// need not be named. A stream of `Watch` ends after the NOT_SERVING of a server that drains:
/// otherwise it would delay the server's end.
///
/// The protocol: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.
///
/// ```
/// use tonic::transport::Server;
/// use tower_sd::lifecycle::{Readiness, ready_health};
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
            true => Ok(Response::new(response(self.readiness.is_ready()))),
            false => Err(Status::not_found(format!("there is no service {service:?} here"))),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let is_known = self.services.contains(&request.get_ref().service);
        let readiness = self.readiness.clone();
        let states = stream::unfold((readiness.states(), None), |(mut states, last)| async move {
            let is_new = |state: &State| {
                last.is_none_or(|last: State| {
                    (last.is_ready(), last.is_draining()) != (state.is_ready(), state.is_draining())
                })
            };
            if last.is_some_and(State::is_draining) {
                return None;
            }
            let state = *states.wait_for(is_new).await.ok()?;
            Some((state, (states, Some(state))))
        });
        let answers = states.map(move |state| match is_known {
            true => Ok(response(state.is_ready())),
            // The protocol: this is no error, and the stream goes on.
            false => Ok(HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() }),
        });
        Ok(Response::new(answers.boxed()))
    }
}

fn response(is_ready: bool) -> HealthCheckResponse {
    let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}
