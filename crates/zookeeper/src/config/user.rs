use std::{fs::File, io::Read, path::PathBuf};

use serde::Deserialize;
use tower_sd_core::{Error, Result, Secret};

use super::refused;

/// Name and password for the scheme `digest`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Fields")]
pub struct User {
    pub(crate) name: String,
    password: Password,
}

#[derive(Clone, Debug)]
enum Password {
    Text(Secret),
    File(PathBuf),
}

/// A user in a configuration file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    name: String,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
}

impl TryFrom<Fields> for User {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        match (fields.password, fields.password_file) {
            (Some(password), None) => Ok(Self::new(fields.name, password)),
            (None, Some(path)) => Ok(Self::from_file(fields.name, path)),
            _ => Err(refused("user: one of password and password_file is given")),
        }
    }
}

impl User {
    /// A user whose password never changes.
    pub fn new(name: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self { name: name.into(), password: Password::Text(password.into()) }
    }

    /// A user whose password is in a file, which is read for every connection.
    ///
    /// A line end behind the password is not part of it.
    pub fn from_file(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), password: Password::File(path.into()) }
    }

    /// The password as it is now.
    pub(crate) fn password(&self) -> Result<Secret> {
        let path = match &self.password {
            Password::Text(password) => return Ok(password.clone()),
            Password::File(path) => path,
        };
        let mut text = String::new();
        let read =
            File::open(path).and_then(|file| file.take(MAX_PASSWORD).read_to_string(&mut text));
        read.map_err(|cause| {
            refused(format!("password-file: cannot read {path:?}")).with_source(cause)
        })?;
        Ok(text.trim_end_matches(['\r', '\n']).into())
    }
}

/// A file that is longer is none of a password.
const MAX_PASSWORD: u64 = 4096;
