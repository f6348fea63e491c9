//! The messages of `grpc.health.v1`, written by hand: two fields in all.

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckResponse {
    /// 0 UNKNOWN, 1 SERVING, 2 NOT_SERVING, 3 SERVICE_UNKNOWN.
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

pub(super) const WATCH: &str = "/grpc.health.v1.Health/Watch";

pub(super) const SERVING: i32 = 1;
