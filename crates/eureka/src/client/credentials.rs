//! The user and password: given, or in a file that is read again.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use tower_sd_core::{Result, Rotating, Secret};

use crate::{EurekaConfig, error};

/// The value of `Authorization`: of Basic authentication, or none.
pub(super) type Credentials = Rotating<Option<HeaderValue>>;

pub(super) fn credentials(config: &EurekaConfig) -> Result<Credentials> {
    let EurekaConfig { user, password, password_file: file, .. } = config.clone();
    let read = move || match &file {
        Some(file) => Secret::read(file).map_err(|cause| {
            error::config("configure", format!("password_file: cannot read {}", file.display()))
                .with_source(cause)
        }),
        None => Ok(password.clone().unwrap_or_default()),
    };
    Rotating::new("Eureka password", read, move |password| {
        user.as_ref().map(|user| basic(user, password.expose())).transpose()
    })
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
