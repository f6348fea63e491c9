//! Sending a request again, to another instance.

mod classify;
mod replay;

pub use self::{
    classify::Verdict,
    replay::{Classify, Cloned, Replay},
};
