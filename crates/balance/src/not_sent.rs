use std::{error, fmt};

use tower_sd_core::BoxError;

/// A failure before anything of the request was sent.
///
/// Repeating the request is safe, whatever it is.
///
/// An endpoint whose connection was dead when it was called returns it. (One that has
/// [taken](crate::InFlight::take) its lease reports [`Outcome::NotSent`](crate::Outcome) instead,
/// and may return any error.)
#[derive(Debug)]
pub struct NotSent(BoxError);

impl NotSent {
    /// Marks `error`.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was not sent")
    }
}

impl error::Error for NotSent {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.0)
    }
}
