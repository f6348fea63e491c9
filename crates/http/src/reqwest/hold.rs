use ::reqwest::{Body, Response, ResponseBuilderExt};
use tower_sd::{Hold, Lease};

use crate::ToBody;

impl Hold<Response> for ToBody {
    type Held = Response;

    fn hold(response: Response, lease: Lease) -> Response {
        // Only a builder can say again what the URL was.
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
        let held: http::Response<_> = Self::hold(http::Response::from_parts(named, body), lease);
        Response::from(held.map(Body::wrap))
    }
}
