#![doc = include_str!("../README.md")]

mod dial;
mod http;
mod io;
mod target;
mod tls;

pub use crate::{
    dial::{Connection, Connector, DialError, DialErrorKind, Dialer},
    http::{
        HttpBody, HttpClient, HttpClientBuilder, HttpClientError, HttpClientErrorKind,
        HttpVersions, kind_of_status, retry_after,
    },
    io::{Duplex, Io},
    target::Target,
    tls::{TlsClient, TlsFailure},
};

#[cfg(feature = "tls")]
pub use crate::tls::TlsServer;

#[cfg(test)]
mod tests;
