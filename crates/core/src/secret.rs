//! Texts that are never shown.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Deserializer, de::Error};

/// A text that never reaches logs, errors, `Debug`, URLs or spans by accident.
///
/// `Debug` prints three stars, there is no `Display`, and it is read from a configuration but never
/// serialised.
///
/// ```
/// use tower_sd::discovery::Secret;
///
/// let token = Secret::new("s3cr3t");
/// assert_eq!(format!("{token:?}"), "***");
/// assert_eq!(token.expose(), "s3cr3t");
/// ```
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Reads a file of at most 64 KiB.
    ///
    /// A line end behind the text and a byte order mark before it are not part of it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is not UTF-8, is longer, or is empty: a writer is about to fill it.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut text = String::new();
        let n = File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
        let text = text.trim_start_matches('\u{feff}');
        let invalid = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        match text.trim() {
            _ if n as u64 > MAX_FILE => invalid("the file is longer than 64 KiB"),
            "" => invalid("the file is empty"),
            _ => Ok(Self::new(text.trim_end_matches(['\r', '\n']))),
        }
    }

    /// The text itself: for the wire, and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Self)
    }
}

/// Deserializes what may have a secret in it: its errors do not quote the text.
///
/// For `#[serde(deserialize_with)]`.
///
/// # Errors
///
/// The value is not a `T`.
pub fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer)
        .map_err(|_quoting| D::Error::custom("of another type, and not shown: it may be a secret"))
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Above every token and password.
const MAX_FILE: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_is_about_to_be_written_is_no_secret() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let long = "a".repeat(65_537);
        for (text, expected) in [
            ("", None),
            (" \n", None),
            ("a b \r\n", Some("a b ")),
            ("\u{feff}a\n", Some("a")),
            ("\u{feff}\n", None),
            (&long, None),
        ] {
            std::fs::write(file.path(), text).expect("our file");
            let secret = Secret::read(file.path());
            assert_eq!(secret.ok().as_ref().map(Secret::expose), expected, "{text:?}");
        }
    }

    #[test]
    fn secret_of_another_type_is_not_shown() {
        let error = serde_json::from_str::<Secret>("12345").expect_err("a number").to_string();
        assert!(!error.contains("12345"), "{error}");
        assert_eq!(serde_json::from_str::<Secret>("\"x\"").expect("a text"), Secret::new("x"));
    }
}
