use std::sync::atomic::AtomicBool;

use super::servers::Servers;
use crate::EurekaConfig;

/// The servers, and how to use them.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) servers: Servers,
    /// A server has answered at its base path.
    pub(super) is_base_known: AtomicBool,
    pub(super) config: EurekaConfig,
}
