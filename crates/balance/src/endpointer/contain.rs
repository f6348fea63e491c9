use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs code of the user's, whose panic must not end the updates. `None`: it has panicked.
pub(crate) fn contain<T>(what: impl fmt::Display, f: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(f));
    if result.is_err() {
        tracing::error!(%what, "panic contained: updates go on");
    }
    result.ok()
}
