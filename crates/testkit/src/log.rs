//! What the code under test logs.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tracing::subscriber::{DefaultGuard, set_default};

/// Everything that is logged on this thread, without the frames of HTTP/2.
///
/// ```
/// use tower_sd_testkit::log::Log;
///
/// let (log, _guard) = Log::capture();
/// tracing::warn!(service = "web", "registration lost");
/// assert_eq!(log.found("WARN", "registration lost")[0]["service"], "web");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Captures until the guard is dropped.
    #[must_use]
    pub fn capture() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_env_filter("trace,h2=off")
            .with_writer(move || writer.clone())
            .finish();
        (log, set_default(subscriber))
    }

    /// Returns the events so far, each with its `level` and its `fields`.
    ///
    /// # Panics
    ///
    /// Never: each line was written as JSON.
    pub fn events(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(bytes).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Returns the fields of the events with this level and message.
    pub fn found(&self, level: &str, message: &str) -> Vec<Value> {
        let is = |event: &Value| event["level"] == level && event["fields"]["message"] == message;
        self.events().into_iter().filter(is).map(|event| event["fields"].clone()).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
