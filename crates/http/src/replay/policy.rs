use http::{Request, Response, StatusCode};
use tower_sd::{BoxError, Classify, Replay, Verdict};

use crate::RepeatableBody;

/// What a retry may do with an HTTP request, and which outcomes are failures.
///
/// - A request that reached no server (refused connect, connection closed before it was written) is repeated whatever
///   its method.
/// - After any other failure it is repeated when sending it twice does what sending it once does: when its method is
///   idempotent (RFC 9110 §9.2.2: GET, HEAD, OPTIONS, TRACE, PUT, DELETE), when it carries [`Idempotent`], or when
///   [`RetryPolicy::idempotent`](tower_sd::RetryPolicy::idempotent) vouches for all.
/// - Its body has to be a [`RepeatableBody`]: complete in memory, or a [`ReplayBody`](crate::ReplayBody).
/// - Every response is the caller's, unless [`repeat_unavailable`](Self::repeat_unavailable).
///
/// ```
/// use http::{Method, Request};
/// use tower_sd::Replay;
/// use tower_sd_http::{HttpReplay, Idempotent};
///
/// let mut order = Request::post("http://shop/order").body(String::from("one"))?;
/// assert!(!HttpReplay::new().is_idempotent(&order));
///
/// // The server recognises the order by its number.
/// order.extensions_mut().insert(Idempotent);
/// assert!(HttpReplay::new().is_idempotent(&order));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HttpReplay {
    unavailable: bool,
}

/// An extension of a request by which its sender vouches that sending it twice does no harm, whatever its method.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a mark, which users make")]
pub struct Idempotent;

impl HttpReplay {
    /// By method and by [`Idempotent`]; responses are never failures.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes 502, 503 and 504 for failures too: a proxy's words for an instance that cannot serve now (RFC 9110 §15.6).
    #[must_use]
    pub fn repeat_unavailable(mut self) -> Self {
        self.unavailable = true;
        self
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn repeats_unavailable(self) -> bool {
        self.unavailable
    }
}

impl<B: RepeatableBody> Replay<Request<B>> for HttpReplay {
    fn replay(&self, request: &Request<B>) -> Option<Request<B>> {
        let mut copy = Request::new(request.body().repeat()?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }

    fn is_repeatable(&self, copy: &Request<B>) -> bool {
        copy.body().is_repeatable()
    }

    fn is_idempotent(&self, request: &Request<B>) -> bool {
        let by_word = || request.extensions().get::<Idempotent>().is_some();
        request.method().is_idempotent() || by_word()
    }
}

impl<B> Classify<Response<B>> for HttpReplay {
    fn classify(&self, outcome: Result<&Response<B>, &BoxError>) -> Verdict {
        match outcome {
            Err(error) => Verdict::of_error(error),
            Ok(response) if self.unavailable && is_unavailable(response.status()) => {
                Verdict::Failed
            }
            Ok(_) => Verdict::Final,
        }
    }
}

pub(crate) fn is_unavailable(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Method;
    use http_body_util::Full;

    use super::*;
    use crate::{HttpError, HttpErrorKind, ReplayBody};

    fn request(method: Method) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from("body"));
        *request.method_mut() = method;
        request
    }

    /// RFC 9110 §9.2.2.
    #[test]
    fn idempotent_methods_are_repeated_and_the_others_on_the_users_word() {
        let by_method = HttpReplay::new();
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert!(by_method.is_idempotent(&request(method)));
        }
        for method in [Method::POST, Method::PATCH, Method::CONNECT] {
            assert!(!by_method.is_idempotent(&request(method.clone())));
            let mut vouched = request(method);
            vouched.extensions_mut().insert(Idempotent);
            assert!(by_method.is_idempotent(&vouched));
        }
    }

    #[test]
    fn a_copy_has_everything_that_the_first_has() {
        let mut first = Request::put("http://arithmetic/a")
            .header("x", "y")
            .body(Full::<Bytes>::from("body"))
            .expect("a valid request");
        first.extensions_mut().insert(Idempotent);
        let copy = HttpReplay::new().replay(&first).expect("repeatable");
        assert_eq!(format!("{copy:?}"), format!("{first:?}"));
        assert!(copy.extensions().get::<Idempotent>().is_some());
    }

    #[test]
    fn a_body_known_to_be_too_large_is_not_copied() {
        let body = ReplayBody::new(Full::new(Bytes::from(vec![0; 64 * 1024 + 1])));
        assert!(HttpReplay::new().replay(&Request::new(body)).is_none());
    }

    #[test]
    fn a_failed_connect_was_not_sent_and_a_broken_exchange_may_have_been() {
        let judge = |kind| {
            let error: BoxError = HttpError::new(kind, &"a:1".into(), "cause").into();
            Classify::<Response<()>>::classify(&HttpReplay::new(), Err(&error))
        };
        assert_eq!(judge(HttpErrorKind::Connect), Verdict::Unsent);
        assert_eq!(judge(HttpErrorKind::Unsent), Verdict::Unsent);
        assert_eq!(judge(HttpErrorKind::Exchange), Verdict::Failed);
    }

    #[test]
    fn unavailable_is_a_failure_on_demand_only() {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let policy = HttpReplay::new();
        assert_eq!(policy.classify(Ok(&response)), Verdict::Final);
        assert_eq!(policy.repeat_unavailable().classify(Ok(&response)), Verdict::Failed);
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(policy.repeat_unavailable().classify(Ok(&response)), Verdict::Final);
    }
}
