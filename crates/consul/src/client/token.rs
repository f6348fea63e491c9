//! The ACL token: given, or in a file that is read again.

use http::HeaderValue;
use tower_sd_core::{Result, Rotated, Rotating, Secret};

use crate::{ConsulConfig, error};

/// A token, and how many others there were before it.
pub(super) type Token = Rotated<Option<Secret>>;

/// The token of the file, or the given one where there is no file in the settings.
pub(super) fn tokens(config: &ConsulConfig) -> Result<Rotating<Option<Secret>>> {
    let (given, file) = (config.token.clone(), config.token_file.clone());
    let read = move || -> Result<Option<Secret>> {
        let Some(file) = &file else {
            return Ok(given.clone());
        };
        let token = Secret::read(file).map_err(|cause| {
            error::config("configure", format!("token_file: cannot read {file:?}"))
                .with_source(cause)
        })?;
        Ok(Some(Secret::new(token.expose().trim())))
    };
    Rotating::new("Consul token", read, |token| {
        header(token.as_ref())?;
        Ok(token.clone())
    })
}

/// The value of `X-Consul-Token`.
pub(super) fn header(token: Option<&Secret>) -> Result<Option<HeaderValue>> {
    let Some(token) = token.filter(|token| !token.expose().is_empty()) else {
        return Ok(None);
    };
    secret_header(token.expose()).map(Some)
}

/// A value that is not logged.
pub(super) fn secret_header(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|cause| {
        error::config("configure", "the token has characters that no header can hold")
            .with_source(cause)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use tempfile::NamedTempFile;
    use tokio::time::advance;

    use super::*;

    fn file(text: &str) -> NamedTempFile {
        let file = NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("our file");
        file
    }

    fn secret(token: &Token) -> &str {
        token.value.as_ref().map_or("", Secret::expose)
    }

    #[tokio::test(start_paused = true)]
    async fn rotated_file_is_a_new_generation_after_a_second_or_a_denial() {
        let file = file("old\n");
        let tokens = tokens(&ConsulConfig::default().token_file(file.path())).expect("read");
        let old = tokens.current();
        assert_eq!((secret(&old), old.generation), ("old", 0));
        assert!(tokens.replacement(&old).is_none(), "the file has not changed");
        fs::write(file.path(), "new\n").expect("our file");
        assert_eq!(secret(&tokens.current()), "old", "read a moment ago");
        let new = tokens.replacement(&old).expect("read after the denial");
        assert_eq!((secret(&new), new.generation), ("new", 1));
        assert_eq!(tokens.replacement(&old).expect("another request has read it").generation, 1);
        fs::write(file.path(), "newest").expect("our file");
        advance(Duration::from_secs(1)).await;
        assert_eq!(tokens.current().generation, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_is_missing_or_empty_keeps_the_token() {
        let file = file("old");
        let config = ConsulConfig::default().token("given").token_file(file.path());
        let tokens = tokens(&config).expect("read");
        fs::write(file.path(), " \n").expect("our file");
        advance(Duration::from_secs(1)).await;
        assert_eq!(secret(&tokens.current()), "old");
        file.close().expect("removed");
        advance(Duration::from_secs(1)).await;
        assert_eq!(secret(&tokens.current()), "old");
        assert!(super::tokens(&config).is_err(), "a client needs it");
    }
}
