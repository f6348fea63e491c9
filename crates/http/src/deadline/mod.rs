//! Deadlines between client and server.

mod body;
pub mod grpc_timeout;
pub(crate) mod header;
mod layer;
#[cfg(test)]
mod tests;
mod timer;

pub use self::{
    body::DeadlineBody,
    layer::{Deadline, DeadlineFuture, DeadlineLayer, DeadlineReport},
};
