//! For the servers that most people have; any other takes a [`Listener`](crate::Listener) and a [`Drain`](crate::Drain).

#[cfg(feature = "axum")]
pub(crate) mod axum;
#[cfg(feature = "axum")]
pub(crate) mod close;
#[cfg(feature = "tonic")]
pub(crate) mod health;
#[cfg(feature = "tonic")]
pub(crate) mod tonic;
