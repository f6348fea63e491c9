//! Settings of TLS connections, without a TLS library.

mod config;
mod files;
mod material;
mod pem;
#[cfg(test)]
mod tests;

pub use self::{config::TlsConfig, files::TlsFiles, material::TlsMaterial, pem::Pem};
