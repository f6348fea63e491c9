use std::time::Duration;

/// The options of resolv.conf that matter to a client which never searches.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct SystemOptions {
    pub(crate) use_tcp: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) attempts: Option<u32>,
}

pub(super) const DNS_PORT: u16 = 53;
