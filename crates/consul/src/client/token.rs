//! The ACL token: given, or in a file that is read again.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tower_sd_core::{Result, Secret};

use crate::{BACKEND, ConsulConfig, error};

/// A token, and how many others there were before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Token {
    pub(super) secret: Option<Secret>,
    pub(super) generation: u64,
}

/// The source of tokens.
///
/// A file is read again for a request 1 s or more after the last read, and after a denial. A file
/// that cannot be read leaves the last token in use, with one warning.
#[derive(Debug)]
pub(super) struct Tokens {
    given: Option<Secret>,
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    token: Token,
    read_at: Instant,
    failing: bool,
}

impl Tokens {
    pub(super) fn new(config: &ConsulConfig) -> Result<Self> {
        let ConsulConfig { token: given, token_file: file, .. } = config.clone();
        let token = Token::default();
        let state = State { token, read_at: Instant::now(), failing: false };
        let tokens = Self { given, file, state: Mutex::new(state) };
        let secret = tokens.read()?;
        tokens.lock().token.secret = secret;
        Ok(tokens)
    }

    /// The token for a request.
    pub(super) fn current(&self) -> Token {
        let mut state = self.lock();
        if self.file.is_some() && state.read_at.elapsed() >= READ_AGAIN {
            self.reread(&mut state);
        }
        state.token.clone()
    }

    /// The token for another attempt after a denial of `denied`, if there is another one.
    pub(super) fn replacement(&self, denied: &Token) -> Option<Token> {
        let mut state = self.lock();
        if self.file.is_some() && state.token.generation == denied.generation {
            self.reread(&mut state);
        }
        (state.token.generation != denied.generation).then(|| state.token.clone())
    }

    fn reread(&self, state: &mut State) {
        state.read_at = Instant::now();
        match self.read() {
            Ok(secret) => {
                state.failing = false;
                if state.token.secret != secret {
                    state.token = Token { secret, generation: state.token.generation + 1 };
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut state.failing, true) {
                    tracing::warn!(backend = BACKEND, error = %error.chain(), "the last token stays in use");
                }
            }
        }
    }

    /// The token of the file, or the given one where the file is missing in the settings or empty.
    fn read(&self) -> Result<Option<Secret>> {
        let Some(file) = &self.file else {
            return Ok(self.given.clone());
        };
        let text = fs::read_to_string(file).map_err(|cause| {
            error::config("configure", format!("token_file: cannot read {file:?}"))
                .with_source(cause)
        })?;
        Ok(match text.trim() {
            "" => self.given.clone(),
            token => Some(Secret::new(token)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file of some bytes, for each of thousands of requests.
const READ_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tempfile::NamedTempFile;

    use super::*;

    fn file(text: &str) -> NamedTempFile {
        let file = NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("our file");
        file
    }

    fn secret(token: &Token) -> &str {
        token.secret.as_ref().map_or("", Secret::expose)
    }

    #[tokio::test(start_paused = true)]
    async fn rotated_file_is_a_new_generation_after_a_second_or_a_denial() {
        let file = file("old\n");
        let tokens = Tokens::new(&ConsulConfig::default().token_file(file.path())).expect("read");
        let old = tokens.current();
        assert_eq!((secret(&old), old.generation), ("old", 0));
        assert!(tokens.replacement(&old).is_none(), "the file has not changed");
        fs::write(file.path(), "new\n").expect("our file");
        assert_eq!(secret(&tokens.current()), "old", "read a moment ago");
        let new = tokens.replacement(&old).expect("read after the denial");
        assert_eq!((secret(&new), new.generation), ("new", 1));
        assert_eq!(tokens.replacement(&old).expect("another request has read it").generation, 1);
        fs::write(file.path(), "newest").expect("our file");
        tokio::time::advance(READ_AGAIN).await;
        assert_eq!(tokens.current().generation, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn missing_file_keeps_the_token_and_an_empty_one_the_given() {
        let file = file("old");
        let config = ConsulConfig::default().token("given").token_file(file.path());
        let tokens = Tokens::new(&config).expect("read");
        fs::write(file.path(), " \n").expect("our file");
        tokio::time::advance(READ_AGAIN).await;
        assert_eq!(secret(&tokens.current()), "given");
        file.close().expect("removed");
        tokio::time::advance(READ_AGAIN).await;
        assert_eq!(secret(&tokens.current()), "given");
        assert!(Tokens::new(&config).is_err(), "a client needs it");
    }
}
