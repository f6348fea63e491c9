//! A small HTTP client of one registry, over hyper.

mod client;
mod connect;
mod error;
mod versions;

pub use self::{
    client::{HttpClient, HttpClientBuilder},
    error::{HttpClientError, HttpClientErrorKind},
    versions::HttpVersions,
};
