//! go-kit's own tests of its core, cache, endpointer, balancers and retry.
//!
//! With what they leave out; and its bugs, each as a test that its behaviour would fail.

mod balancers;
mod cache;
mod retry;
