//! Values of a thread that are set around a synchronous call.

use std::{cell::Cell, mem};

/// Runs `f` with `value` in `cell`, and with what `f` leaves there. The value of an outer call
/// returns, after a panic too.
#[inline]
pub(crate) fn with<T: Default, R>(cell: &Cell<T>, value: T, f: impl FnOnce() -> R) -> (R, T) {
    let _outer = Restore(cell, cell.replace(value));
    let result = f();
    (result, cell.take())
}

struct Restore<'a, T: Default>(&'a Cell<T>, T);

impl<T: Default> Drop for Restore<'_, T> {
    fn drop(&mut self) {
        drop(self.0.replace(mem::take(&mut self.1)));
    }
}
