use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response, header::CONTENT_TYPE};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tokio::time::Instant;
use tower::{Layer, Service};

/// What is counted; `Clone` shares it.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: Family<Labels, Counter>,
    in_flight: Gauge,
    seconds: Histogram,
}

/// Of a request that was answered. The path is none: callers choose it, and every new one would
/// cost memory without bound.
type Labels = [(&'static str, String); 2];

/// Counts requests, and measures how long they take until the answer begins.
#[derive(Clone, Debug)]
pub(crate) struct MetricsLayer(Metrics);

/// What [`MetricsLayer`] makes.
#[derive(Clone, Debug)]
pub(crate) struct Measured<S> {
    inner: S,
    metrics: Metrics,
}

/// In flight until dropped: a request may be abandoned.
struct InFlight(Metrics);

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("arithmetic");
        let requests = Family::default();
        let in_flight = Gauge::default();
        let seconds = Histogram::new(SECONDS);
        registry.register("requests", "Requests answered", requests.clone());
        registry.register("requests_in_flight", "Requests being answered", in_flight.clone());
        registry.register("request_seconds", "Time until the answer begins", seconds.clone());
        Self(Arc::new(Inner { registry, requests, in_flight, seconds }))
    }

    pub(crate) fn layer(&self) -> MetricsLayer {
        MetricsLayer(self.clone())
    }

    /// `GET /metrics`, as Prometheus reads it.
    pub(crate) fn answer(&self) -> Result<Response<String>, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        let mut answer = Response::new(text);
        answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(OPEN_METRICS));
        Ok(answer)
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured { inner, metrics: self.0.clone() }
    }
}

impl<S, B, C> Service<Request<B>> for Measured<S>
where
    S: Service<Request<B>, Response = Response<C>, Future: Send + 'static>,
{
    type Response = Response<C>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<C>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request.method().to_string();
        let (begun, in_flight) = (Instant::now(), InFlight::new(&self.metrics));
        let answer = self.inner.call(request);
        let count = move |answer: &Result<Response<C>, S::Error>| {
            let Inner { requests, seconds, .. } = &*in_flight.0.0;
            let code = answer.as_ref().map_or_else(
                |_error| "none".to_owned(),
                |answer| answer.status().as_u16().to_string(),
            );
            requests.get_or_create(&[("method", method), ("code", code)]).inc();
            seconds.observe(begun.elapsed().as_secs_f64());
        };
        answer.inspect(count).boxed()
    }
}

impl InFlight {
    fn new(metrics: &Metrics) -> Self {
        metrics.0.in_flight.inc();
        Self(metrics.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.in_flight.dec();
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From the time of a calculation to more than any caller's timeout.
const SECONDS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::StatusCode;
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn requests_are_counted_by_method_and_code_and_measured() {
        let metrics = Metrics::new();
        let service = metrics.layer().layer(service_fn(async |request: Request<u16>| {
            let mut answer = Response::new(());
            *answer.status_mut() = StatusCode::from_u16(*request.body()).expect("a code");
            Ok::<_, Infallible>(answer)
        }));
        for code in [200, 200, 400] {
            let request = Request::post("/").body(code).expect("a request");
            service.clone().oneshot(request).await.expect("answers");
        }
        let text = metrics.answer().expect("text").into_body();
        for line in [
            "arithmetic_requests_total{method=\"POST\",code=\"200\"} 2",
            "arithmetic_requests_total{method=\"POST\",code=\"400\"} 1",
            "arithmetic_requests_in_flight 0",
            "arithmetic_request_seconds_count 3",
            "# TYPE arithmetic_request_seconds histogram",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[tokio::test]
    async fn abandoned_request_is_in_flight_no_more_and_not_counted() {
        let metrics = Metrics::new();
        let never = service_fn(|_request: Request<()>| {
            std::future::pending::<Result<Response<()>, Infallible>>()
        });
        let call = metrics.layer().layer(never).oneshot(Request::new(()));
        let mut call = Box::pin(call);
        assert!(futures_util::poll!(&mut call).is_pending());
        let in_flight = || metrics.0.in_flight.get();
        assert_eq!(in_flight(), 1);
        drop(call);
        assert_eq!(in_flight(), 0);
        let text = metrics.answer().expect("text").into_body();
        assert!(!text.contains("arithmetic_requests_total{"), "{text}");
    }
}
