use std::{error, fmt, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

use crate::{
    InstanceId,
    chain::{OneLine, chain},
};

/// A boxed error of any kind, as tower has it.
pub type BoxError = Box<dyn error::Error + Send + Sync>;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a registry, or of a request to it.
///
/// Opaque: match on [`kind`](Error::kind), repeat when [`is_transient`](Error::is_transient).
/// `Display` prints this level only, as in `etcd register: access denied`; the chain behind
/// [`source`](error::Error::source) is the caller's to print. `Debug` prints the chain. `Clone` is
/// one `Arc`: one error is seen by every subscriber. It must never contain a secret: its maker
/// passes only redacted texts.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    transient: bool,
    without_effect: bool,
    backend: &'static str,
    operation: &'static str,
    instance: Option<InstanceId>,
    message: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn error::Error + Send + Sync>>,
}

/// The class of an [`Error`]: what a caller can do about it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The other half is gone: the instancer, registrar or handle was closed.
    Closed,
    /// The input or the configuration is wrong; repeating cannot help.
    Config,
    /// Another process owns the entry.
    Conflict,
    /// The registry refuses: credentials are missing, wrong or too weak.
    Denied,
    /// The registry does not have the requested entry.
    NotFound,
    /// The answer could not be understood.
    Protocol,
    /// No answer within the bound.
    Timeout,
    /// The registry cannot be reached, or cannot serve now.
    Unavailable,
}

impl ErrorKind {
    const fn is_transient(self) -> bool {
        matches!(self, Self::Protocol | Self::Timeout | Self::Unavailable)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Config => "invalid configuration",
            Self::Conflict => "owned by another process",
            Self::Denied => "access denied",
            Self::NotFound => "not found",
            Self::Protocol => "the answer was not understood",
            Self::Timeout => "no answer in time",
            Self::Unavailable => "registry unavailable",
        })
    }
}

impl Error {
    /// Creates an error of `backend` (`"etcd"`) in `operation` (`"register"`).
    ///
    /// `Protocol`, `Timeout` and `Unavailable` start as transient, the other kinds as permanent.
    #[must_use]
    pub fn new(kind: ErrorKind, backend: &'static str, operation: &'static str) -> Self {
        Self(Arc::new(Inner {
            kind,
            transient: kind.is_transient(),
            without_effect: false,
            backend,
            operation,
            instance: None,
            message: None,
            retry_after: None,
            source: None,
        }))
    }

    /// Sets a message in place of the kind's: the input, the rule and the remedy.
    #[must_use]
    pub fn with_message(self, message: impl Into<String>) -> Self {
        self.edit(|inner| inner.message = Some(message.into()))
    }

    /// Names the cause.
    #[must_use]
    pub fn with_source(self, source: impl Into<BoxError>) -> Self {
        self.edit(|inner| inner.source = Some(source.into().into()))
    }

    /// Names the instance that it concerns.
    #[must_use]
    pub fn with_instance(self, instance: InstanceId) -> Self {
        self.edit(|inner| inner.instance = Some(instance))
    }

    /// Sets the time that the registry requires before the next attempt.
    ///
    /// For example `Retry-After` of HTTP 429 and 503.
    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Self {
        self.edit(|inner| inner.retry_after = Some(after))
    }

    /// Marks it as worth repeating although its kind is not.
    #[must_use]
    pub fn transient(self) -> Self {
        self.edit(|inner| inner.transient = true)
    }

    /// Marks it as final although its kind is worth repeating.
    ///
    /// Such an error reports that all attempts are used up, for example.
    #[must_use]
    pub fn permanent(self) -> Self {
        self.edit(|inner| inner.transient = false)
    }

    /// Marks it as the failure of a call that has changed nothing in the registry.
    ///
    /// The connection was refused, for example, or a read before the write has failed. A
    /// registration whose calls have all failed so has nothing to withdraw.
    #[must_use]
    pub fn without_effect(self) -> Self {
        self.edit(|inner| inner.without_effect = true)
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call can succeed later without any change.
    pub fn is_transient(&self) -> bool {
        self.0.transient
    }

    /// Whether the failed call has certainly changed nothing in the registry.
    pub fn is_without_effect(&self) -> bool {
        self.0.without_effect
    }

    /// The backend that saw it: `"consul"`, `"memory"`.
    pub fn backend(&self) -> &'static str {
        self.0.backend
    }

    /// What the backend was doing: `"register"`, `"follow"`.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The instance that it concerns, where there is one.
    pub fn instance(&self) -> Option<&InstanceId> {
        self.0.instance.as_ref()
    }

    /// The least time before the next attempt, where the registry requires one.
    ///
    /// Both loops observe it, up to 5 min.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns this error and what caused it in one line: for logs.
    ///
    /// `Display` prints this level only.
    pub fn chain(&self) -> impl fmt::Display {
        chain(self)
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

/// As its [`chain`](Error::chain), which is what a `main` that returns it prints; `{:#?}` shows the
/// fields.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(&self.chain(), f);
        }
        f.debug_tuple("Error").field(&self.0).finish()
    }
}

/// As its [`chain`](Error::chain).
impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&self.chain())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, backend, operation, instance, message, .. } = &*self.0;
        write!(f, "{backend} {operation}: ")?;
        match message {
            Some(message) => OneLine(message).fmt(f)?,
            None => kind.fmt(f)?,
        }
        let instance = instance.as_ref().map(|id| OneLine(id.as_str()));
        instance.iter().try_for_each(|id| write!(f, " (instance {id})"))
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_deref().map(|source| -> &(dyn error::Error + 'static) { source })
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn text_of_others_makes_no_line_of_its_own() {
        let error = Error::new(ErrorKind::Protocol, "etcd", "read")
            .with_message("not JSON: a\r\nb")
            .with_instance("c\nINFO forged".into())
            .with_source(std::io::Error::other("d\u{1b}[2J\ne"));
        for text in [error.to_string(), error.chain().to_string(), format!("{error:?}")] {
            assert!(!text.contains(char::is_control), "{text:?}");
            assert!(text.contains(r"(instance c\nINFO forged)"), "{text}");
        }
    }

    #[test]
    fn display_prints_this_level_only_and_the_chain_has_the_rest() {
        let error = Error::new(ErrorKind::Denied, "etcd", "register").with_source("no such user");
        assert_eq!(error.to_string(), "etcd register: access denied");
        assert_eq!(error.source().expect("has a source").to_string(), "no such user");
        assert_eq!(error.chain().to_string(), "etcd register: access denied: no such user");
    }

    #[test]
    fn transience_follows_the_kind_unless_set() {
        let timeout = Error::new(ErrorKind::Timeout, "consul", "follow");
        assert!(timeout.is_transient());
        assert!(!timeout.permanent().is_transient());
        assert!(!Error::new(ErrorKind::Config, "consul", "follow").is_transient());
    }

    #[test]
    fn edited_clone_leaves_the_first_alone() {
        let first = Error::new(ErrorKind::Config, "memory", "register");
        let second = first.clone().with_message("port 0 cannot be reached; give the real port");
        assert_eq!(first.to_string(), "memory register: invalid configuration");
        assert!(second.to_string().ends_with("give the real port"));
    }
}
