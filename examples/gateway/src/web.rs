//! In over HTTP, out over HTTP.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{HeaderName, header::CONNECTION, uri::PathAndQuery};
use tower_sd::BoxError;

use crate::services::{Missing, Services};

pub(crate) fn router(services: Arc<Services>) -> Router {
    Router::new()
        .route("/", get(catalogue))
        .route("/{service}", any(root))
        .route("/{service}/{*rest}", any(pass))
        .route("/{service}/", any(root))
        .with_state(services)
}

/// The services of the catalogue, and those that are followed now.
async fn catalogue(State(followed): State<Arc<Services>>) -> Response {
    match followed.list().await {
        Ok(listed) => {
            let services: Vec<_> = listed.into_keys().collect();
            let followed = followed.followed();
            Json(BTreeMap::from([("services", services), ("followed", followed)])).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

async fn root(
    services: State<Arc<Services>>,
    Path(service): Path<String>,
    request: Request,
) -> Response {
    answer(&services, &service, request).await
}

async fn pass(
    services: State<Arc<Services>>,
    Path((service, _rest)): Path<(String, String)>,
    request: Request,
) -> Response {
    answer(&services, &service, request).await
}

async fn answer(services: &Services, service: &str, request: Request) -> Response {
    let client = match services.client(service).await {
        Ok(client) => client,
        Err(Missing::Unknown) => {
            let text = format!("there is no service {service}\n");
            return (StatusCode::NOT_FOUND, text).into_response();
        }
        Err(Missing::Unread(error)) => return unavailable(&error),
    };
    let request = match outgoing(service, request) {
        Ok(request) => request,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    match client.request(request).await {
        Ok(response) => {
            let (mut parts, body) = response.into_parts();
            remove_hop_by_hop(&mut parts.headers);
            Response::from_parts(parts, Body::new(body))
        }
        Err(error) => {
            tracing::warn!(%error, "no answer");
            (error.status(), format!("{error}\n")).into_response()
        }
    }
}

/// The request as the instance gets it: the path without the service, which is the host.
fn outgoing(service: &str, request: Request) -> Result<Request, BoxError> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    // The first part as it was sent, which may be encoded otherwise than the name.
    let rest = path[1..].find(['/', '?']).map_or("", |at| &path[1 + at..]);
    let slash = if rest.starts_with('/') { "" } else { "/" };
    parts.uri = Uri::builder()
        .scheme("http")
        .authority(service)
        .path_and_query(format!("{slash}{rest}"))
        .build()?;
    parts.headers.remove(header::HOST);
    remove_hop_by_hop(&mut parts.headers);
    Ok(Request::from_parts(parts, body))
}

/// RFC 9110, 7.6.1: what belongs to one connection does not go to the next.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fn unavailable(error: &tower_sd::Error) -> Response {
    let text = format!("{}\n", error.chain());
    tracing::warn!(error = text, "unavailable");
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
