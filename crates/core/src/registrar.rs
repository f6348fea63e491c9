use std::ops::Deref;

use async_trait::async_trait;

use crate::{Registration, RegistrationHandle, Result};

/// Registers instances in a registry.
///
/// # Contract
///
/// - A registration must last until its handle is deregistered or dropped, or the registrar is
///   closed. It must be renewed, and made again after a loss, without a bound on attempts.
/// - A registration must not replace or remove the entry of another one, except a predecessor's
///   when it is made; see [`Registration::reclaim`].
/// - Registrations of one registrar must not disturb each other.
///
/// # Implementing
///
/// A backend implements [`Announcer`](crate::Announcer) and passes it to
/// [`announce`](crate::announce()).
#[async_trait]
pub trait Registrar: Send + Sync + 'static {
    /// Registers an instance, and keeps it registered until the handle is deregistered or dropped.
    ///
    /// # Errors
    ///
    /// `Config` for an instance that no client could reach (a wildcard address, port 0), `Closed`
    /// after [`close`](Self::close). Unless [`Registration::retry_in_background`] is set, the error
    /// of the first attempts.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the instance is withdrawn in the background, as for a dropped handle.
    async fn register(&self, registration: Registration) -> Result<RegistrationHandle>;

    /// Withdraws all registrations made here, and waits until that is done.
    ///
    /// Does nothing by default: for registrars without tasks of their own.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, they are still withdrawn in the background.
    async fn close(&self) {}
}

/// `Arc`, `Box`, and the registries of one kind, which are a [`Registry`](crate::Registry) each.
#[async_trait]
impl<T: Deref<Target: Registrar> + Send + Sync + 'static> Registrar for T {
    async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        (**self).register(registration).await
    }

    async fn close(&self) {
        (**self).close().await;
    }
}
