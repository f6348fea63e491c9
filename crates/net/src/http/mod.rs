//! A small HTTP client of one registry, over hyper.

mod client;
mod connect;
mod error;

pub use self::{
    client::{HttpClient, HttpClientBuilder, HttpVersions},
    error::{HttpClientError, HttpClientErrorKind},
};
