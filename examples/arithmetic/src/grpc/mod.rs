//! The service over gRPC: the same calculations, the same sentences.

mod client;
mod server;

/// `cargo xtask generate` makes it.
#[allow(warnings, reason = "generated")]
mod proto;

pub(crate) use self::{client::Client, server::router};

use self::proto::Operation as Named;
use crate::service::{Mistake, Operation};

/// The name under which servers announce themselves: not that of the HTTP service, whose clients
/// would find them otherwise.
pub(crate) const NAME: &str = "arithmetic-grpc";

impl From<Operation> for Named {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Add => Self::Add,
            Operation::Subtract => Self::Subtract,
            Operation::Multiply => Self::Multiply,
            Operation::Divide => Self::Divide,
        }
    }
}

impl TryFrom<Named> for Operation {
    type Error = Mistake;

    fn try_from(named: Named) -> Result<Self, Mistake> {
        match named {
            Named::Add => Ok(Self::Add),
            Named::Subtract => Ok(Self::Subtract),
            Named::Multiply => Ok(Self::Multiply),
            Named::Divide => Ok(Self::Divide),
            Named::Unspecified => Err(Mistake::NoOperation(named.as_str_name().to_owned())),
        }
    }
}
