use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, Request, Response, StatusCode, header::RETRY_AFTER};
use tower_sd_balance::{BoxError, FailureClass, Outcome, Protocol, Verdict};

use crate::{HttpError, RepeatableBody};

/// What a retry may do with an HTTP request, and which outcomes are failures.
///
/// - A request that reached no server (refused connect, connection closed before it was written) is
///   repeated whatever its method.
/// - After any other failure it is repeated when sending it twice does what sending it once does:
///   when its method is idempotent (RFC 9110 §9.2.2: GET, HEAD, OPTIONS, TRACE, PUT, DELETE; or, if
///   they are set, one of [`methods`](Self::methods) in place of these), when it carries
///   [`Idempotent`], or when
///   [`RetryPolicy::idempotent`](tower_sd_balance::RetryPolicy::idempotent) declares it for all.
/// - Its body has to be a [`RepeatableBody`]: complete in memory, or a
///   [`ReplayBody`](crate::ReplayBody).
/// - Every response is returned to the caller. With
///   [`repeat_unavailable`](Self::repeat_unavailable), 502, 503 and 504 are repeated, and their
///   `Retry-After` replaces the pause; one that is a date or longer than 1 s ends the request.
/// - In the statistics of an instance, 5xx are failures, except 501 and 505.
///
/// ```
/// use http::{Method, Request};
/// use tower_sd::http::{HttpProtocol, Idempotent};
/// use tower_sd::retry::Protocol;
///
/// fn is_idempotent(request: &Request<String>) -> bool {
///     Protocol::<_, http::Response<()>>::is_idempotent(&HttpProtocol::new(), request)
/// }
///
/// let mut order = Request::post("http://shop/order").body(String::from("one"))?;
/// assert!(!is_idempotent(&order));
///
/// // The server recognises the order by its number.
/// order.extensions_mut().insert(Idempotent);
/// assert!(is_idempotent(&order));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct HttpProtocol {
    unavailable: bool,
    /// In place of those that are idempotent.
    methods: Option<Arc<[Method]>>,
}

/// An extension of a request that marks it as idempotent, whatever its method.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a mark, which users make")]
pub struct Idempotent;

impl HttpProtocol {
    /// By method and by [`Idempotent`]; responses are never failures.
    pub fn new() -> Self {
        Self::default()
    }

    /// Repeats requests of these methods only, in place of the idempotent ones.
    ///
    /// It applies where a server may have received the first attempt. Defaults to the idempotent
    /// methods of RFC 9110 §9.2.2. Requests that were never sent, and those that carry
    /// [`Idempotent`], are repeated all the same.
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        Self { methods: Some(methods.into_iter().collect()), ..self }
    }

    /// Takes 502, 503 and 504 for failures too.
    ///
    /// They are a proxy's words for an instance that cannot serve now (RFC 9110 §15.6).
    pub fn repeat_unavailable(self) -> Self {
        Self { unavailable: true, ..self }
    }

    pub(crate) fn repeats(&self, method: &Method) -> bool {
        match &self.methods {
            Some(methods) => methods.contains(method),
            None => method.is_idempotent(),
        }
    }

    pub(crate) fn verdict_of(
        &self,
        result: Result<(StatusCode, &HeaderMap), &BoxError>,
    ) -> Verdict {
        match result {
            Err(error) => match HttpError::find(&**error) {
                Some(http) if http.is_callers() => Verdict::Final,
                // Behind another error it is that of a client inside what has failed.
                Some(http) if http.is_not_sent() && error.is::<HttpError>() => Verdict::NotSent,
                _ => Verdict::of_error(error),
            },
            Ok((status, headers)) if self.unavailable && is_unavailable(status) => {
                match headers.contains_key(RETRY_AFTER) && retry_after(headers).is_none() {
                    true => Verdict::Final,
                    false => Verdict::Failed,
                }
            }
            Ok(_) => Verdict::Final,
        }
    }
}

impl<B: RepeatableBody, R> Protocol<Request<B>, Response<R>> for HttpProtocol {
    fn copy(&self, request: &Request<B>) -> Option<Request<B>> {
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

    fn is_shareable(&self, copy: &Request<B>) -> bool {
        copy.body().is_shareable()
    }

    fn is_idempotent(&self, request: &Request<B>) -> bool {
        let by_word = || request.extensions().get::<Idempotent>().is_some();
        self.repeats(request.method()) || by_word()
    }

    fn outcome(&self, result: Result<&Response<R>, &BoxError>) -> Outcome {
        outcome_of(result.map(Response::status))
    }

    fn verdict(&self, result: Result<&Response<R>, &BoxError>) -> Verdict {
        self.verdict_of(result.map(|response| (response.status(), response.headers())))
    }

    fn is_rejection(&self, response: &Response<R>) -> bool {
        response.status() == StatusCode::TOO_MANY_REQUESTS
    }

    fn pause(&self, response: &Response<R>) -> Option<Duration> {
        retry_after(response.headers())
    }
}

/// Whose failure a result is; 501 and 505 report the wrong program, not a sick one.
pub(crate) fn outcome_of(result: Result<StatusCode, &BoxError>) -> Outcome {
    let status = match result {
        Ok(status) => status,
        Err(error) => {
            let http = HttpError::find(&**error);
            return http.map_or_else(|| Outcome::of_error(error), HttpError::outcome);
        }
    };
    let is_program =
        matches!(status, StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    match status.is_server_error() && !is_program {
        true => Outcome::Failed(FailureClass::Response),
        false => Outcome::Success,
    }
}

/// The pause that the server requires, when it is short enough to wait for.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    tower_sd_net::retry_after(headers).filter(|pause| *pause <= PATIENCE)
}

/// A longer pause is the caller's decision.
const PATIENCE: Duration = Duration::from_secs(1);

fn is_unavailable(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
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
    fn idempotent_methods_are_repeated_and_others_when_marked() {
        let is_idempotent = |request: &Request<_>| {
            Protocol::<_, Response<()>>::is_idempotent(&HttpProtocol::new(), request)
        };
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert!(is_idempotent(&request(method)));
        }
        for method in [Method::POST, Method::PATCH, Method::CONNECT] {
            assert!(!is_idempotent(&request(method.clone())));
            let mut vouched = request(method);
            vouched.extensions_mut().insert(Idempotent);
            assert!(is_idempotent(&vouched));
        }
    }

    #[test]
    fn copy_has_everything_that_the_first_has() {
        let mut first = Request::put("http://arithmetic/a")
            .header("x", "y")
            .body(Full::<Bytes>::from("body"))
            .expect("a valid request");
        first.extensions_mut().insert(Idempotent);
        let copy =
            Protocol::<_, Response<()>>::copy(&HttpProtocol::new(), &first).expect("repeatable");
        assert_eq!(format!("{copy:?}"), format!("{first:?}"));
        assert!(copy.extensions().get::<Idempotent>().is_some());
    }

    #[test]
    fn body_known_to_be_too_large_is_not_copied() {
        let body = ReplayBody::new(Full::new(Bytes::from(vec![0; 64 * 1024 + 1])));
        assert!(
            Protocol::<_, Response<()>>::copy(&HttpProtocol::new(), &Request::new(body)).is_none()
        );
    }

    #[test]
    fn failed_connect_is_unsent_and_a_broken_exchange_may_be_sent() {
        let judge = |kind| {
            let error: BoxError = HttpError::new(kind, &"a:1".into(), "cause").into();
            HttpProtocol::new().verdict_of(Err(&error))
        };
        assert_eq!(judge(HttpErrorKind::Connect), Verdict::NotSent);
        assert_eq!(judge(HttpErrorKind::NotSent), Verdict::NotSent);
        assert_eq!(judge(HttpErrorKind::Io), Verdict::Failed);
    }

    #[test]
    fn unavailable_is_a_failure_on_demand_only() {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let policy = HttpProtocol::new();
        assert_eq!(policy.verdict_of(Ok((response.status(), response.headers()))), Verdict::Final);
        assert_eq!(
            policy
                .clone()
                .repeat_unavailable()
                .verdict_of(Ok((response.status(), response.headers()))),
            Verdict::Failed
        );
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(
            policy.repeat_unavailable().verdict_of(Ok((response.status(), response.headers()))),
            Verdict::Final
        );
    }

    #[test]
    fn retry_after_is_obeyed_and_ends_it_when_it_is_long() {
        let policy = HttpProtocol::new().repeat_unavailable();
        for (value, verdict, pause) in [
            ("0", Verdict::Failed, Some(Duration::ZERO)),
            ("1", Verdict::Failed, Some(Duration::from_secs(1))),
            ("2", Verdict::Final, None),
            ("1000000000000000000", Verdict::Final, None),
            ("100000000000000000000", Verdict::Final, None),
            ("Fri, 31 Dec 1999 23:59:59 GMT", Verdict::Final, None),
        ] {
            let response = Response::builder().status(503).header(RETRY_AFTER, value).body(());
            let response = response.expect("a response");
            assert_eq!(
                policy.verdict_of(Ok((response.status(), response.headers()))),
                verdict,
                "{value}"
            );
            assert_eq!(retry_after(response.headers()), pause, "{value}");
        }
    }

    #[test]
    fn failures_of_an_instance_differ_from_those_of_its_caller() {
        let broken = Outcome::Failed(FailureClass::Response);
        for (status, outcome) in [
            (200, Outcome::Success),
            (404, Outcome::Success),
            (429, Outcome::Success),
            (500, broken),
            (501, Outcome::Success),
            (503, broken),
        ] {
            assert_eq!(outcome_of(Ok(StatusCode::from_u16(status).expect("a status"))), outcome);
        }
    }
}
