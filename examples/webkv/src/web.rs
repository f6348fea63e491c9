//! The service over HTTP.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::store::Store;

pub(crate) fn router(store: Arc<Store>) -> Router {
    Router::new().route("/{key}", get(value)).with_state(store)
}

async fn value(State(store): State<Arc<Store>>, Path(key): Path<String>) -> Response {
    let (status, response) = match store.get(&key).await {
        Ok(Some(value)) => (StatusCode::OK, value.into_response()),
        Ok(None) => (StatusCode::NOT_FOUND, format!("no key {key}\n").into_response()),
        Err(error) => {
            tracing::error!(key, %error, "not answered");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n").into_response())
        }
    };
    tracing::info!(key, status = status.as_u16(), "get");
    (status, response).into_response()
}
