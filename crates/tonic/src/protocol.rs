use std::{error::Error, time::Duration};

use http::{HeaderMap, Request, Response};
use tonic::{Code, Status};
use tower_sd_balance::{BoxError, Outcome, Protocol, Verdict};
use tower_sd_http::{HttpError, Idempotent, RepeatableBody};

use crate::{code, deadline::Deadline};

/// What a retry may do with a call, and which statuses are failures.
///
/// - A call that no server has acted on (refused connect, refused stream, a stream that came after
///   the server's GOAWAY) is repeated whatever it does.
/// - After any other failure it is repeated when sending it twice does what sending it once does:
///   when its method is among [`GrpcLayer::idempotent`](crate::GrpcLayer::idempotent), when it
///   carries [`Idempotent`], or when
///   [`RetryPolicy::idempotent`](tower_sd_balance::RetryPolicy::idempotent) declares it for all.
/// - Failures are broken exchanges, and UNAVAILABLE; every other status is the caller's unless
///   [`codes`](Self::codes).
/// - `grpc-retry-pushback-ms` is obeyed (gRFC A6): a pause in place of ours, or the end. More than
///   1 s counts as the end: a caller that waits so long needs the reason.
/// - After the deadline (`grpc-timeout`) nothing is repeated.
///
/// A status that comes in trailers, after the headers, counts for methods named in
/// [`GrpcLayer::idempotent`](crate::GrpcLayer::idempotent): nothing else marks a call as unary, and
/// an answer that streams is not held back. Servers send failures of unary calls without headers
/// before, so this is seldom missed.
///
/// ```
/// use tonic::{Code, Status};
/// use tower_sd::grpc::GrpcProtocol;
/// use tower_sd::retry::RetryPolicy;
///
/// let policy = RetryPolicy::new().protocol(GrpcProtocol::new().codes([Code::Unavailable, Code::Aborted]));
/// # let _ = policy;
/// ```
#[derive(Clone, Debug)]
pub struct GrpcProtocol {
    codes: Vec<Code>,
}

impl GrpcProtocol {
    /// UNAVAILABLE is a failure.
    pub fn new() -> Self {
        Self { codes: vec![Code::Unavailable] }
    }

    /// The statuses that are failures, in place of UNAVAILABLE alone.
    #[must_use]
    pub fn codes(mut self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.codes = codes.into_iter().collect();
        self
    }
}

impl Default for GrpcProtocol {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: RepeatableBody, R> Protocol<Request<B>, Response<R>> for GrpcProtocol {
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
        let over = copy.extensions().get::<Deadline>().is_some_and(Deadline::is_over);
        !over && copy.body().is_repeatable()
    }

    fn is_shareable(&self, copy: &Request<B>) -> bool {
        copy.body().is_shareable()
    }

    fn is_idempotent(&self, request: &Request<B>) -> bool {
        request.extensions().get::<Idempotent>().is_some()
    }

    fn outcome(&self, result: Result<&Response<R>, &BoxError>) -> Outcome {
        match result {
            Ok(response) => code::known_code(response).map_or(Outcome::Success, code::outcome_of),
            Err(error) => match error.downcast_ref::<Status>() {
                Some(status) => code::outcome_of_status(status),
                None => Outcome::of_error(error),
            },
        }
    }

    fn verdict(&self, result: Result<&Response<R>, &BoxError>) -> Verdict {
        let response = match result {
            Err(error) => {
                let status = error.downcast_ref::<Status>().and_then(Error::source);
                let own = status.and_then(|source| source.downcast_ref::<HttpError>());
                return match code::find::<HttpError>(&**error) {
                    Some(http) if http.is_callers() => Verdict::Final,
                    // Behind another error it is that of a client inside what has failed.
                    _ if own.is_some_and(HttpError::is_not_sent) => Verdict::NotSent,
                    _ => Verdict::of_error(error),
                };
            }
            Ok(response) => response,
        };
        let failed = code::known_code(response).is_some_and(|code| self.codes.contains(&code));
        match code::metadata(response).and_then(Pushback::of) {
            Some(Pushback::Stop) => Verdict::Final,
            _ if failed => Verdict::Failed,
            _ => Verdict::Final,
        }
    }

    fn is_rejection(&self, response: &Response<R>) -> bool {
        code::known_code(response) == Some(Code::ResourceExhausted)
    }

    fn pause(&self, response: &Response<R>) -> Option<Duration> {
        match Pushback::of(code::metadata(response)?)? {
            Pushback::Pause(pause) => Some(pause),
            Pushback::Stop => None,
        }
    }
}

/// The server's answer to a second try.
enum Pushback {
    Pause(Duration),
    Stop,
}

impl Pushback {
    fn of(metadata: &HeaderMap) -> Option<Self> {
        // gRFC A6: what is negative or no number means no.
        let asked = metadata.get(PUSHBACK)?.to_str().ok().and_then(|text| text.parse().ok());
        let pause = asked.map(Duration::from_millis).filter(|pause| *pause <= PATIENCE);
        Some(pause.map_or(Self::Stop, Self::Pause))
    }
}

const PUSHBACK: &str = "grpc-retry-pushback-ms";

const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushback_that_is_long_or_no_number_means_no_retry() {
        let protocol = GrpcProtocol::new();
        for (value, verdict) in [
            ("0", Verdict::Failed),
            ("1000", Verdict::Failed),
            ("1001", Verdict::Final),
            ("1000000000000000000", Verdict::Final),
            ("100000000000000000000", Verdict::Final),
            ("-1", Verdict::Final),
            ("soon", Verdict::Final),
        ] {
            let response = Response::builder().header("grpc-status", "14").header(PUSHBACK, value);
            let response = response.body(()).expect("a response");
            let judged = Protocol::<Request<String>, _>::verdict(&protocol, Ok(&response));
            assert_eq!(judged, verdict, "{value}");
        }
    }
}
