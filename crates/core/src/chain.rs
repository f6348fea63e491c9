use std::{
    error::Error,
    fmt::{self, Write},
    iter::successors,
};

/// Returns an error and its causes in one line: for logs and reports.
///
/// A cause whose text is in the one above it is left out: many libraries print their cause with
/// themselves.
///
/// ```
/// use std::io;
///
/// let error = tower_sd::Error::new(tower_sd::ErrorKind::Unavailable, "etcd", "follow")
///     .with_source(io::Error::other("connection refused"));
/// let text = tower_sd::backend::chain(&error).to_string();
/// assert_eq!(text, "etcd follow: registry unavailable: connection refused");
/// ```
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + use<'a> {
    Chain(error)
}

/// Returns an error and its causes.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error| (*error).source())
}

/// A text in one line: others may have written it, and a line of their own in a log would be a
/// forged one.
pub(crate) struct OneLine<'a>(pub(crate) &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        OneLine(&shown).fmt(f)?;
        for cause in causes(self.0).skip(1) {
            let text = cause.to_string();
            if !shown.contains(&text) {
                write!(f, ": {}", OneLine(&text))?;
            }
            shown = text;
        }
        Ok(())
    }
}

/// Returns the beginning of a foreign text, at most 300 bytes of it: for messages.
///
/// A server answers in a sentence; a proxy may answer with a page.
pub fn clipped(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

const MAX_TEXT: usize = 300;
