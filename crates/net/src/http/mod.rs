//! A small HTTP client of one registry, over hyper.

mod body;
mod client;
mod connect;
mod error;
mod versions;

pub use self::{
    body::HttpBody,
    client::{HttpClient, HttpClientBuilder},
    error::{HttpClientError, HttpClientErrorKind},
    versions::HttpVersions,
};
