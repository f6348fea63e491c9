//! A configuration of rustls that follows rotated files.

use std::sync::{Arc, Mutex, PoisonError};

use tower_sd_core::{Result, TlsConfig, TlsFiles, TlsMaterial};

/// Builds a configuration of the texts that were read.
type Build<C> = fn(&TlsConfig, &TlsMaterial) -> Result<Arc<C>>;

pub(super) struct Rotating<C> {
    files: TlsFiles,
    build: Build<C>,
    built: Mutex<Built<C>>,
}

/// The configuration of the youngest texts that could be used.
struct Built<C> {
    generation: u64,
    config: Arc<C>,
}

impl<C> Rotating<C> {
    pub(super) fn new(config: TlsConfig, build: Build<C>) -> Result<Self> {
        let files = TlsFiles::new(config)?;
        let material = files.current();
        let config = build(files.config(), &material)?;
        let built = Mutex::new(Built { generation: material.generation, config });
        Ok(Self { files, build, built })
    }

    pub(super) fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// The configuration for a new connection.
    pub(super) fn current(&self) -> Arc<C> {
        let material = self.files.current();
        // A panic leaves nothing half-done inside.
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if material.generation > built.generation {
            built.generation = material.generation;
            match (self.build)(self.files.config(), &material) {
                Ok(config) => built.config = config,
                Err(error) => {
                    let error = error.chain();
                    tracing::warn!(%error, "TLS files unusable: the last good ones stay in use");
                }
            }
        }
        Arc::clone(&built.config)
    }
}
