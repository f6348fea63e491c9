//! The user and password: given, or in a file that is read again.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use tower_sd_core::{Result, Secret};

use crate::{BACKEND, EurekaConfig, error};

/// Basic authentication, or none.
///
/// A file that cannot be read again leaves the last password in use.
#[derive(Debug)]
pub(super) struct Credentials {
    user: Option<String>,
    file: Option<PathBuf>,
    password: Mutex<Secret>,
}

impl Credentials {
    pub(super) fn new(config: &EurekaConfig) -> Result<Self> {
        let file = config.password_file.clone();
        let password = match &file {
            Some(file) => read(file)?,
            None => config.password.clone().unwrap_or_default(),
        };
        let credentials = Self { user: config.user.clone(), file, password: Mutex::new(password) };
        credentials.header()?;
        Ok(credentials)
    }

    /// The value of `Authorization`.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>> {
        let header = |user: &String| basic(user, self.lock().expose());
        self.user.as_ref().map(header).transpose()
    }

    /// Reads the file again, after a refusal.
    pub(super) fn reread(&self) {
        match self.file.as_ref().map(read) {
            Some(Ok(password)) => *self.lock() = password,
            Some(Err(error)) => {
                tracing::warn!(backend = BACKEND, error = %error.chain(), "the last password stays in use");
            }
            None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Secret> {
        self.password.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value of `Authorization` for a user.
fn basic(user: &str, password: &str) -> Result<HeaderValue> {
    let text = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let mut value = HeaderValue::try_from(text).map_err(|cause| {
        error::config("configure", "the password cannot be sent").with_source(cause)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(file: &PathBuf) -> Result<Secret> {
    let text = fs::read_to_string(file).map_err(|cause| {
        error::config("configure", format!("password_file: cannot read {}", file.display()))
            .with_source(cause)
    })?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}
