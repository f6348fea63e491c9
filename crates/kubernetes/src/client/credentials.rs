//! The bearer token: given, in a file that is read again, or printed by a program.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use tokio::{sync::Semaphore, time::Instant};
use tower_sd_core::{Error, Result, Rotated, Rotating, Secret};

use super::exec;
use crate::{
    ExecPlugin, KubernetesConfig,
    error::{self, CONFIGURE},
};

/// A token, and how many others there were before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Token(Rotated<Option<Secret>>);

/// The source of tokens.
#[derive(Debug)]
pub(super) enum Credentials {
    /// Given, or in a file.
    Rotating(Rotating<Option<Secret>>),
    Printed(Box<Printed>),
}

/// The tokens that a program prints.
#[derive(Debug)]
pub(super) struct Printed {
    plugin: ExecPlugin,
    /// Of running the program: one at a time.
    turn: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Rotated<Option<Secret>>,
    /// When the program was run.
    read_at: Option<Instant>,
    /// When the program failed, and how.
    failed: Option<(Instant, Error)>,
}

impl Token {
    /// The value of `Authorization`.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>> {
        header(self.0.value.as_ref())
    }

    /// A text of the server's, without the token should that be echoed.
    pub(super) fn hidden_in(&self, text: String) -> String {
        match self.0.value.as_ref().filter(|secret| !secret.expose().is_empty()) {
            Some(secret) => text.replace(secret.expose(), "***"),
            None => text,
        }
    }
}

fn header(token: Option<&Secret>) -> Result<Option<HeaderValue>> {
    let Some(secret) = token.filter(|secret| !secret.expose().is_empty()) else {
        return Ok(None);
    };
    let text = format!("Bearer {}", secret.expose());
    let mut value = HeaderValue::try_from(text).map_err(|_quoting| {
        error::config(CONFIGURE, "the token has characters that no header can hold")
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

impl Credentials {
    pub(super) fn new(config: &KubernetesConfig) -> Result<Self> {
        let KubernetesConfig { token: given, token_file: file, exec: plugin, .. } = config.clone();
        if let Some(plugin) = plugin {
            let (turn, state) = (Semaphore::new(1), Mutex::default());
            return Ok(Self::Printed(Box::new(Printed { plugin, turn, state })));
        }
        let read = move || -> Result<Option<Secret>> {
            let Some(file) = &file else {
                return Ok(given.clone());
            };
            let (token, file) = (Secret::read(file), file.display());
            let token = token.map_err(|cause| {
                error::config(CONFIGURE, format!("token_file: cannot read {file}"))
                    .with_source(cause)
            })?;
            Ok(Some(Secret::new(token.expose().trim())))
        };
        // One that no header can hold replaces none.
        let usable = |token: &Option<Secret>| header(token.as_ref()).map(|_| token.clone());
        Ok(Self::Rotating(Rotating::new("Kubernetes token", read, usable)?))
    }

    /// The token for a request.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the program is killed.
    pub(super) async fn current(&self) -> Result<Token> {
        match self {
            Self::Rotating(tokens) => Ok(Token(tokens.current())),
            Self::Printed(printed) => {
                let token = printed.lock().token.clone();
                match token.value {
                    Some(_) => Ok(Token(token)),
                    None => printed.run(token.generation).await.map(Token),
                }
            }
        }
    }

    /// The token for another attempt after a refusal of `refused`, if there is another one.
    ///
    /// # Cancel safety
    ///
    /// As [`current`](Self::current).
    pub(super) async fn replacement(&self, Token(refused): &Token) -> Result<Option<Token>> {
        let token = match self {
            Self::Rotating(tokens) => tokens.replacement(refused),
            Self::Printed(printed) => Some(printed.run(refused.generation).await?),
        };
        Ok(token.filter(|token| token.generation != refused.generation).map(Token))
    }
}

impl Printed {
    /// Runs the program, unless another request has, or it was run a moment ago.
    ///
    /// A failure is the answer to those that wait behind it, too.
    async fn run(&self, old: u64) -> Result<Rotated<Option<Secret>>> {
        // The semaphore is never closed.
        let _turn = self.turn.acquire().await.ok();
        {
            let state = self.lock();
            let recent = state.read_at.is_some_and(|at| at.elapsed() < RUN_AGAIN);
            let is_known = state.token.value.is_some();
            if state.token.generation != old || (recent && is_known) {
                return Ok(state.token.clone());
            }
            if let Some((at, error)) = &state.failed
                && at.elapsed() < RUN_AGAIN
            {
                return Err(error.clone());
            }
        }
        let printed = exec::run(&self.plugin).await;
        let printed = printed.and_then(|token| header(Some(&token)).map(|_| token));
        let mut state = self.lock();
        state.failed = printed.as_ref().err().map(|error| (Instant::now(), error.clone()));
        state.token.value = Some(printed?);
        state.token.generation += 1;
        state.read_at = Some(Instant::now());
        Ok(state.token.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hundreds of followers may be refused together, and by a cluster that accepts no token.
const RUN_AGAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
