//! Stands for `tls.rs` where the feature `tls` is off: nothing is secured.

use tower_sd::BoxError;

use crate::{Protocol, io::Io};

/// There is none.
#[derive(Clone, Debug)]
pub(crate) enum Secured {}

impl Secured {
    #[expect(clippy::unused_async, reason = "with TLS it waits for the handshake")]
    pub(crate) async fn connect(
        &self,
        _io: Io,
        _offer: Protocol,
    ) -> Result<(Io, Protocol), BoxError> {
        match *self {}
    }
}

/// Whether the server ended the handshake after ours was over; without TLS there is none.
pub(crate) fn is_handshake_refused(_error: &(dyn std::error::Error + 'static)) -> bool {
    false
}
