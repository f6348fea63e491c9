use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{config::TlsConfig, material::TlsMaterial};
use crate::Result;

/// The files of a [`TlsConfig`], read again when they may have changed.
///
/// Connections take the [`current`](Self::current) texts when they are made. Files are read
/// again for a connection that is made 1 s or more after the last read, or after
/// [`suspect`](Self::suspect), and compared by content. A file that cannot be read leaves the
/// last good texts in use, with one warning.
///
/// Reading blocks the thread: a few small files, at most once a second.
pub struct TlsFiles {
    config: TlsConfig,
    state: Mutex<State>,
}

struct State {
    material: TlsMaterial,
    read_at: Instant,
    suspected: bool,
    failing: bool,
}

impl TlsFiles {
    /// Reads all files.
    ///
    /// # Errors
    ///
    /// As [`TlsConfig::load`].
    pub fn new(config: TlsConfig) -> Result<Self> {
        let state = State {
            material: config.load()?,
            read_at: Instant::now(),
            suspected: false,
            failing: false,
        };
        Ok(Self { config, state: Mutex::new(state) })
    }

    /// The settings.
    pub fn config(&self) -> &TlsConfig {
        &self.config
    }

    /// The texts for a new connection.
    pub fn current(&self) -> TlsMaterial {
        let mut state = self.lock();
        let now = Instant::now();
        if state.suspected || now.duration_since(state.read_at) >= MIN_INTERVAL {
            state.suspected = false;
            state.read_at = now;
            state.reread(&self.config);
        }
        state.material.clone()
    }

    /// Has the files read again for the next connection: a handshake has failed.
    pub fn suspect(&self) {
        self.lock().suspected = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves nothing half-done inside.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reread(&mut self, config: &TlsConfig) {
        let generation = self.material.generation;
        match config.load() {
            Ok(read) => {
                self.failing = false;
                let read = TlsMaterial { generation, ..read };
                if read != self.material {
                    self.material = TlsMaterial { generation: generation + 1, ..read };
                    tracing::info!("TLS files changed: new connections use them");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    let error = error.chain();
                    tracing::warn!(%error, "TLS files not read again: the last ones stay in use");
                }
            }
        }
    }
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFiles").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Bounds the cost where connections are made all the time.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
