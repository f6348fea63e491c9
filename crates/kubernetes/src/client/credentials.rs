//! The bearer token: given, in a file that is read again, or printed by a program.

use std::{
    fs, mem,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use tokio::{sync::Semaphore, time::Instant};
use tower_sd_core::{Error, Result, Secret};

use super::exec;
use crate::{
    BACKEND, ExecPlugin, KubernetesConfig,
    error::{self, CONFIGURE},
};

/// A token, and how many others there were before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Token {
    pub(super) secret: Option<Secret>,
    generation: u64,
}

/// The source of tokens.
///
/// A file is read again for a request 1 s or more after the last read, and after a refusal. A file
/// that cannot be read leaves the last token in use, with one warning.
#[derive(Debug)]
pub(super) struct Credentials {
    given: Option<Secret>,
    file: Option<PathBuf>,
    plugin: Option<ExecPlugin>,
    /// Of running the program: one at a time.
    turn: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    token: Token,
    /// When the file was read, or the program run.
    read_at: Option<Instant>,
    failing: bool,
    /// When the program failed, and how.
    failed: Option<(Instant, Error)>,
}

impl Token {
    /// The value of `Authorization`.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>> {
        let Some(secret) = self.secret.as_ref().filter(|secret| !secret.expose().is_empty()) else {
            return Ok(None);
        };
        let text = format!("Bearer {}", secret.expose());
        let mut value = HeaderValue::try_from(text).map_err(|_quoting| {
            error::config(CONFIGURE, "the token has characters that no header can hold")
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// A text of the server's, without the token should that be echoed.
    pub(super) fn hidden_in(&self, text: String) -> String {
        match self.secret.as_ref().filter(|secret| !secret.expose().is_empty()) {
            Some(secret) => text.replace(secret.expose(), "***"),
            None => text,
        }
    }
}

impl Credentials {
    pub(super) fn new(config: &KubernetesConfig) -> Result<Self> {
        let KubernetesConfig { token: given, token_file: file, exec: plugin, .. } = config.clone();
        let state = State { token: Token::default(), read_at: None, failing: false, failed: None };
        let (turn, state) = (Semaphore::new(1), Mutex::new(state));
        let credentials = Self { given, file, plugin, turn, state };
        if credentials.plugin.is_none() {
            let secret = credentials.read()?;
            let mut state = credentials.lock();
            state.token.secret = secret;
            state.token.header()?;
            state.read_at = Some(Instant::now());
        }
        Ok(credentials)
    }

    /// The token for a request.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the program is killed.
    pub(super) async fn current(&self) -> Result<Token> {
        if let Some(plugin) = &self.plugin {
            let token = self.lock().token.clone();
            return match token.secret {
                Some(_) => Ok(token),
                None => self.run(plugin, &token).await,
            };
        }
        let mut state = self.lock();
        if self.file.is_some() && state.read_at.is_none_or(|at| at.elapsed() >= READ_AGAIN) {
            self.reread(&mut state);
        }
        Ok(state.token.clone())
    }

    /// The token for another attempt after a refusal of `refused`, if there is another one.
    ///
    /// # Cancel safety
    ///
    /// As [`current`](Self::current).
    pub(super) async fn replacement(&self, refused: &Token) -> Result<Option<Token>> {
        let token = match &self.plugin {
            Some(plugin) => self.run(plugin, refused).await?,
            None => {
                let mut state = self.lock();
                if self.file.is_some() && state.token.generation == refused.generation {
                    self.reread(&mut state);
                }
                state.token.clone()
            }
        };
        Ok((token.generation != refused.generation).then_some(token))
    }

    /// Runs the program, unless another request has, or it was run a moment ago.
    ///
    /// A failure is the answer to those that wait behind it, too.
    async fn run(&self, plugin: &ExecPlugin, old: &Token) -> Result<Token> {
        // The semaphore is never closed.
        let _turn = self.turn.acquire().await.ok();
        {
            let state = self.lock();
            let recent = state.read_at.is_some_and(|at| at.elapsed() < RUN_AGAIN);
            let is_known = state.token.secret.is_some();
            if state.token.generation != old.generation || (recent && is_known) {
                return Ok(state.token.clone());
            }
            if let Some((at, error)) = &state.failed
                && at.elapsed() < RUN_AGAIN
            {
                return Err(error.clone());
            }
        }
        let printed = exec::run(plugin).await;
        let mut state = self.lock();
        state.failed = printed.as_ref().err().map(|error| (Instant::now(), error.clone()));
        let secret = printed?;
        state.read_at = Some(Instant::now());
        state.token =
            Token { secret: Some(secret), generation: state.token.generation.saturating_add(1) };
        Ok(state.token.clone())
    }

    fn reread(&self, state: &mut State) {
        state.read_at = Some(Instant::now());
        match self.read() {
            Ok(secret) => {
                state.failing = false;
                if state.token.secret != secret {
                    let generation = state.token.generation.saturating_add(1);
                    state.token = Token { secret, generation };
                }
            }
            Err(error) => {
                if !mem::replace(&mut state.failing, true) {
                    tracing::warn!(backend = BACKEND, error = %error.chain(), "the last token stays in use");
                }
            }
        }
    }

    fn read(&self) -> Result<Option<Secret>> {
        let Some(file) = &self.file else {
            return Ok(self.given.clone());
        };
        let text = fs::read_to_string(file).map_err(|cause| {
            error::config(CONFIGURE, format!("token_file: cannot read {}", file.display()))
                .with_source(cause)
        })?;
        match text.trim() {
            // A writer that is not atomic.
            "" => Err(error::config(CONFIGURE, format!("token_file: {} is empty", file.display()))),
            token => Ok(Some(Secret::new(token))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file of some bytes, for each of hundreds of requests.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Hundreds of followers may be refused together, and by a cluster that accepts no token.
const RUN_AGAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
