//! Settings of TLS connections, without a TLS library.

mod config;
mod files;
mod pem;
#[cfg(test)]
mod tests;

pub use self::{
    config::TlsConfig,
    files::{TlsFiles, TlsMaterial},
    pem::Pem,
};
