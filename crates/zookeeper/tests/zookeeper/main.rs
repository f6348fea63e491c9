//! A registry on real ZooKeepers: sessions, ownership, outages, what others write.

mod absence;
mod ensemble;
mod foreign;
mod limits;
mod nodes;
mod persistent;
mod sessions;
mod support;
#[cfg(feature = "tls-ring")]
mod tls;
