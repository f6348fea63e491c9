//! Panics of the code of users and backends, contained so that they end no loop.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
};

use futures_util::FutureExt;

/// Awaits the future that `call` returns; `None` if the one or the other panics.
pub(crate) async fn contained<F: Future>(call: impl FnOnce() -> F) -> Option<F::Output> {
    AssertUnwindSafe(async { call().await }).catch_unwind().await.ok()
}

/// Calls `call`; `None` if it panics.
pub(crate) fn contained_now<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
