use ::reqwest::{Body, Response, ResponseBuilderExt};
use tower_sd_balance::InFlight;

use crate::{HttpError, hold::leased};

/// Ties the lease to the response, or releases it.
pub(super) fn hold(
    result: Result<Response, HttpError>,
    lease: Option<InFlight>,
) -> Result<Response, HttpError> {
    let response = match result {
        Ok(response) if lease.is_some() => response,
        Ok(response) => return Ok(response),
        Err(error) => {
            if let Some(lease) = lease {
                lease.done(error.outcome());
            }
            return Err(error);
        }
    };
    // Only a builder can name the URL again.
    let url = response.url().clone();
    let (parts, body) = http::Response::<Body>::from(response).into_parts();
    let (mut named, ()) = http::Response::builder()
        .url(url)
        .body(())
        .map_or_else(|_| http::Response::new(()).into_parts(), http::Response::into_parts);
    named.status = parts.status;
    named.version = parts.version;
    named.headers = parts.headers;
    named.extensions.extend(parts.extensions);
    let held = leased(Ok(http::Response::from_parts(named, body)), lease)?;
    Ok(Response::from(held.map(Body::wrap)))
}
