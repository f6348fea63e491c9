//! Settings of TLS connections, without a TLS library.

mod config;
mod pem;
#[cfg(test)]
mod tests;

pub use self::{
    config::{TlsConfig, TlsMaterial},
    pem::Pem,
};
