use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{Error, ErrorKind, Result, Secret};

/// Certificates or a key in PEM form (RFC 7468), in a file or in memory.
///
/// A text converts into the path of a file, unless it has a `-----BEGIN` in it. `Debug` prints
/// paths and no text in memory.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(from = "String")]
#[non_exhaustive]
pub enum Pem {
    /// The path of a file; among authorities also of a folder, which stands for all its files.
    File(PathBuf),
    /// The text itself.
    Text(Secret),
}

impl Pem {
    /// The text, which must have at least one such block; `role` names it in errors.
    pub(super) fn read(&self, role: &str, block: &str) -> Result<String> {
        let (text, place) = match self {
            Self::Text(text) => (text.expose().to_owned(), "the text in memory".to_owned()),
            Self::File(path) => {
                let place = format!("{path:?}");
                let unreadable =
                    |cause| invalid(format!("{role}: cannot read {place}")).with_source(cause);
                (read_path(path).map_err(unreadable)?, place)
            }
        };
        // A byte order mark or a blank before a block would hide it from parsers.
        let lines = text.lines().map(|line| line.trim_start_matches(['\u{feff}', ' ', '\t']));
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        if text.contains(ENCRYPTED) && block == KEY {
            return Err(invalid(format!(
                "{role}: {place} is encrypted; give the key in the clear"
            )));
        }
        match text.contains(block) {
            true => Ok(text),
            false => Err(invalid(format!("{role}: {place} has no PEM block of this kind"))),
        }
    }
}

impl<T: Into<PathBuf>> From<T> for Pem {
    fn from(text: T) -> Self {
        let path = text.into();
        match path.to_str() {
            Some(text) if text.contains("-----BEGIN") => Self::Text(text.into()),
            _ => Self::File(path),
        }
    }
}

impl From<Secret> for Pem {
    fn from(text: Secret) -> Self {
        Self::Text(text)
    }
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, "tls", "load").with_message(message)
}

fn read_path(path: &Path) -> io::Result<String> {
    if !path.is_dir() {
        return read_file(path);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if file.is_file() {
            files.push(file);
        }
    }
    // The same text for the same files, whatever their order in the folder.
    files.sort();
    let texts: io::Result<Vec<String>> = files.iter().map(|file| read_file(file)).collect();
    Ok(texts?.join("\n"))
}

/// Comments around the PEM blocks may be in any encoding.
fn read_file(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err(io::Error::other("longer than 4 MiB, which no PEM file is"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// Of all kinds: PKCS #8, PKCS #1, SEC 1.
pub(super) const KEY: &str = "PRIVATE KEY-----";
/// PKCS #8, and the header of RFC 1421.
const ENCRYPTED: &str = "ENCRYPTED";
/// A bundle of all public authorities has 0.3 MiB.
const MAX_FILE: u64 = 4 << 20;
