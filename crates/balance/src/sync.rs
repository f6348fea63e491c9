//! The locks and atomics whose interleavings are checked.
//!
//! They are std's, and in this crate's unit tests those of shuttle.
//!
//! Shuttle's work inside of its runs only, see `endpointer/tests/interleavings.rs`. What no other
//! thread waits for or decides by keeps to std.

#[cfg(test)]
pub(crate) use shuttle::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU64},
    },
    thread_local,
};
#[cfg(not(test))]
pub(crate) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU64},
    },
    thread_local,
};
