use std::{error, fmt};

use tower_sd_core::BoxError;

/// Says that a request failed before anything of it was sent: repeating it is safe, whatever it asks for.
///
/// An endpoint that finds its connection dead when it is called wraps its error in this one;
/// [`Retry`](crate::Retry) looks for it in the chain of sources.
#[derive(Debug)]
pub struct Unsent(BoxError);

impl Unsent {
    /// Marks `error`.
    #[must_use]
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was not sent")
    }
}

impl error::Error for Unsent {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.0)
    }
}
