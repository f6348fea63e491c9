//! Which status an answer has, and whose failure that is.

use std::{error::Error, sync::Arc};

use http::{HeaderMap, Response, StatusCode, header::CONTENT_TYPE};
use tonic::{Code, Status};
use tower_sd_balance::{
    BoxError, Elapsed, FailureClass, NoInstances, NotSent, Outcome, Overloaded, RetryError, causes,
};
use tower_sd_http::HttpError;

/// The trailers of an answer that was read to its end before the caller saw it.
#[derive(Clone, Debug)]
pub(crate) struct Trailers(pub(crate) HeaderMap);

/// The status, if it is known before the body is read.
///
/// It is in the headers of an answer without a body ("trailers-only"), or in trailers that were
/// read ahead. A peer that does not use gRPC, or has ended without a status, has given it by that.
pub(crate) fn known_code<B>(response: &Response<B>) -> Option<Code> {
    let early = metadata(response).and_then(code);
    let is_grpc = response.status() == StatusCode::OK && is_grpc(response.headers());
    let late = || metadata(response).map(|_| Code::Unknown);
    early.or_else(|| (!is_grpc).then(|| of_http(response.status()))).or_else(late)
}

/// Where the status of `response` stands with what belongs to it.
pub(crate) fn metadata<B>(response: &Response<B>) -> Option<&HeaderMap> {
    if response.headers().contains_key(Status::GRPC_STATUS) {
        return Some(response.headers());
    }
    response.extensions().get::<Trailers>().map(|Trailers(trailers)| trailers)
}

/// A page of a proxy in front is not.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

pub(crate) fn code(trailers: &HeaderMap) -> Option<Code> {
    trailers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// Whose failure a code is.
///
/// The instance's are those that Envoy counts as 5xx for its outlier detection, less UNIMPLEMENTED:
/// that is the wrong program, not a sick one.
pub(crate) fn outcome_of(code: Code) -> Outcome {
    match code {
        Code::DeadlineExceeded => Outcome::TimedOut,
        Code::DataLoss | Code::Internal | Code::Unavailable | Code::Unknown => {
            Outcome::Failed(FailureClass::Response)
        }
        _ => Outcome::Success,
    }
}

/// Whose failure it is that a call ended without an answer.
pub(crate) fn outcome_of_status(status: &Status) -> Outcome {
    match find::<HttpError>(status) {
        Some(error) => error.outcome(),
        None if status.code() == Code::DeadlineExceeded => Outcome::TimedOut,
        None => Outcome::Failed(FailureClass::Exchange),
    }
}

/// What an HTTP status stands for when there is no `grpc-status` (gRPC's
/// `http-grpc-status-mapping.md`).
fn of_http(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// The status of a failed exchange, with its error as source.
///
/// Headers or trailers that are too large keep the code in them.
pub(crate) fn of_exchange(error: HttpError) -> Status {
    let code = match error.headers_too_large() {
        Some(found) => code(found.short_fields()).unwrap_or(Code::ResourceExhausted),
        None if error.is_callers() => Code::Internal,
        None => {
            let reset = find::<h2::Error>(&error).filter(|cause| cause.is_reset());
            reset.and_then(h2::Error::reason).map_or(Code::Unavailable, of_reset)
        }
    };
    let mut status = Status::new(code, chain(&error));
    status.set_source(Arc::new(error));
    status
}

/// What a reset stream stands for (gRPC's `PROTOCOL-HTTP2.md`, "Errors").
fn of_reset(reason: h2::Reason) -> Code {
    match reason {
        h2::Reason::CANCEL => Code::Cancelled,
        h2::Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        h2::Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        h2::Reason::REFUSED_STREAM => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// The status of what a stack of layers has failed with.
pub(crate) fn of_error(error: BoxError) -> Status {
    let error = match error.downcast::<Status>() {
        Ok(status) => return *status,
        Err(error) => error,
    };
    let none = find::<NoInstances>(&*error).map(|_| Code::Unavailable);
    let none = none.or_else(|| find::<Overloaded>(&*error).map(|_| Code::ResourceExhausted));
    // It is over, whatever the last attempt has failed with.
    let is_late = find::<RetryError>(&*error).is_some_and(RetryError::is_deadline);
    let late = || is_late.then_some(Code::DeadlineExceeded);
    let of_status = || find::<Status>(&*error).map(Status::code);
    let elapsed = || find::<Elapsed>(&*error).map(|_| Code::DeadlineExceeded);
    let code = none.or_else(late).or_else(of_status).or_else(elapsed).unwrap_or(Code::Unknown);
    let mut status = Status::new(code, chain(&*error));
    status.set_source(error.into());
    status
}

/// A status has one line for everything that is known.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut told = Vec::new();
    for error in causes(error) {
        if let Some(status) = error.downcast_ref::<Status>() {
            // Made here, of everything that stands behind it.
            told.push(status.message().to_owned());
            break;
        }
        // `NotSent` reports how to go on, and not the cause.
        if !error.is::<NotSent>() {
            told.push(error.to_string());
        }
        // Lists its attempts.
        if error.is::<RetryError>() {
            break;
        }
    }
    told.dedup();
    told.join(": ")
}

pub(crate) fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    causes(error).find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: StatusCode, headers: &[(&'static str, &'static str)]) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = status;
        for (name, value) in headers {
            response.headers_mut().insert(*name, value.parse().expect("a value"));
        }
        response
    }

    #[test]
    fn status_stands_in_headers_or_in_trailers_that_were_read() {
        let mut response = answered(StatusCode::OK, &[("grpc-status", "14")]);
        assert_eq!(known_code(&response), Some(Code::Unavailable));
        response.headers_mut().clear();
        assert_eq!(known_code(&response), Some(Code::Unknown));
        response.headers_mut().insert(CONTENT_TYPE, "text/html".parse().expect("a value"));
        assert_eq!(known_code(&response), Some(Code::Unknown));
        for kind in ["application/grpc", "application/grpc+proto"] {
            response.headers_mut().insert(CONTENT_TYPE, kind.parse().expect("a value"));
            assert_eq!(known_code(&response), None);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "5".parse().expect("a value"));
        response.extensions_mut().insert(Trailers(trailers));
        assert_eq!(known_code(&response), Some(Code::NotFound));
        response.extensions_mut().insert(Trailers(HeaderMap::new()));
        assert_eq!(known_code(&response), Some(Code::Unknown));
    }

    /// A proxy's answer has none.
    #[test]
    fn http_status_stands_for_the_one_that_is_missing() {
        for (status, code) in [
            (StatusCode::BAD_REQUEST, Code::Internal),
            (StatusCode::UNAUTHORIZED, Code::Unauthenticated),
            (StatusCode::FORBIDDEN, Code::PermissionDenied),
            (StatusCode::NOT_FOUND, Code::Unimplemented),
            (StatusCode::TOO_MANY_REQUESTS, Code::Unavailable),
            (StatusCode::BAD_GATEWAY, Code::Unavailable),
            (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            (StatusCode::GATEWAY_TIMEOUT, Code::Unavailable),
            (StatusCode::IM_A_TEAPOT, Code::Unknown),
        ] {
            assert_eq!(known_code(&answered(status, &[])), Some(code), "{status}");
        }
        let both = answered(StatusCode::BAD_GATEWAY, &[("grpc-status", "3")]);
        assert_eq!(known_code(&both), Some(Code::InvalidArgument));
    }

    #[test]
    fn error_becomes_the_status_that_is_in_it() {
        let status = of_error(NotSent::new(Status::aborted("conflict")).into());
        assert_eq!((status.code(), status.message()), (Code::Aborted, "conflict"));
        assert!(status.source().is_some_and(|source| source.is::<NotSent>()));
        let status = of_error("something else".into());
        assert_eq!((status.code(), status.message()), (Code::Unknown, "something else"));
    }

    /// gRPC's table.
    #[test]
    fn reset_stream_has_the_code_of_its_reason() {
        assert_eq!(of_reset(h2::Reason::CANCEL), Code::Cancelled);
        assert_eq!(of_reset(h2::Reason::ENHANCE_YOUR_CALM), Code::ResourceExhausted);
        assert_eq!(of_reset(h2::Reason::INADEQUATE_SECURITY), Code::PermissionDenied);
        assert_eq!(of_reset(h2::Reason::REFUSED_STREAM), Code::Unavailable);
        assert_eq!(of_reset(h2::Reason::PROTOCOL_ERROR), Code::Internal);
    }
}
