//! Ways to a connection: resolution, the race of addresses, sockets.

mod connector;
mod dialer;
mod error;
mod race;

pub use self::{
    connector::Connector,
    dialer::{Connection, Dialer},
    error::{DialError, DialErrorKind},
};
