//! The glue to axum and tonic.
//!
//! Any other server takes a [`Listener`](crate::Listener) and a
//! [`ShutdownSignal`](crate::ShutdownSignal).

#[cfg(feature = "axum")]
pub(crate) mod axum;
#[cfg(feature = "tonic")]
pub(crate) mod health;
#[cfg(feature = "tonic")]
pub(crate) mod tonic;
