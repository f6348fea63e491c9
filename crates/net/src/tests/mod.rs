#[cfg(feature = "tls-ring")]
mod authority;
mod dialling;
mod requests;
mod server;
#[cfg(feature = "tls-ring")]
mod tls;
#[cfg(feature = "tls-ring")]
mod tls_server;
