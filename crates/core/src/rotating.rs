use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::Result;

/// A value made of files, and made again when they may have changed.
///
/// Files are read again for a use 1 s or more after the last read, and after a failure, and
/// compared by content. Files that cannot be used leave the last good value in use, with one
/// warning.
///
/// Reading blocks the thread: a few small files, at most once a second.
pub struct Rotating<T> {
    what: &'static str,
    state: Mutex<State<T>>,
}

/// A value of a [`Rotating`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Rotated<T> {
    /// The value.
    pub value: T,
    /// Increases by one with each change.
    pub generation: u64,
}

struct State<T> {
    latest: Rotated<T>,
    /// Reads the files; `None` if nothing has changed.
    read: Box<dyn FnMut() -> Result<Option<T>> + Send>,
    /// `None` after a failure.
    read_at: Option<Instant>,
    failing: bool,
}

impl<T: Clone> Rotating<T> {
    /// Reads the files, and makes the value of their content.
    ///
    /// `what` names them in the log: `"TLS files"`.
    ///
    /// # Errors
    ///
    /// As `read` and `make`.
    pub fn new<S: PartialEq + Send + 'static>(
        what: &'static str,
        read: impl Fn() -> Result<S> + Send + 'static,
        make: impl Fn(&S) -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        let mut last = read()?;
        let latest = Rotated { value: make(&last)?, generation: 0 };
        let read = Box::new(move || {
            let content = read()?;
            if content == last {
                return Ok(None);
            }
            let value = make(&content)?;
            last = content;
            Ok(Some(value))
        });
        let state = State { latest, read, read_at: Some(Instant::now()), failing: false };
        Ok(Self { what, state: Mutex::new(state) })
    }

    /// Returns the value for a new connection or request.
    pub fn current(&self) -> Rotated<T> {
        let mut state = self.lock();
        if state.read_at.is_none_or(|at| at.elapsed() >= MIN_INTERVAL) {
            state.reread(self.what);
        }
        state.latest.clone()
    }

    /// Returns another value for an attempt after a failure, if there is one.
    pub fn replacement(&self, failed: &Rotated<T>) -> Option<Rotated<T>> {
        let mut state = self.lock();
        if state.latest.generation == failed.generation {
            state.reread(self.what);
        }
        (state.latest.generation != failed.generation).then(|| state.latest.clone())
    }

    /// Has the files read again for the next use: a handshake has failed.
    pub fn suspect(&self) {
        self.lock().read_at = None;
    }
}

impl<T> Rotating<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic leaves nothing half-done inside.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn reread(&mut self, what: &'static str) {
        self.read_at = Some(Instant::now());
        let read = (self.read)();
        let has_failed = std::mem::replace(&mut self.failing, read.is_err());
        match read {
            Ok(None) => {}
            Ok(Some(value)) => {
                self.latest = Rotated { value, generation: self.latest.generation + 1 };
                tracing::info!(what, "files changed: used from now on");
            }
            Err(error) if !has_failed => {
                tracing::warn!(what, error = %error.chain(), "files unusable: the last good ones stay in use");
            }
            Err(_) => {}
        }
    }
}

impl<T> fmt::Debug for Rotating<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotating").field("what", &self.what).finish_non_exhaustive()
    }
}

/// Bounds the cost where connections are made all the time.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
