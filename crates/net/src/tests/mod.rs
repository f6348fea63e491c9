mod dialling;
mod requests;
mod server;
#[cfg(feature = "tls-ring")]
mod tls;
