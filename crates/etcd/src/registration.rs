//! Registers under a lease of its own.

mod announcer;
mod entry;

pub(crate) use self::announcer::EtcdAnnouncer;
