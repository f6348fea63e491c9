use std::path::PathBuf;

use serde::Deserialize;

use crate::{Error, ErrorKind, Result, Secret};

/// Name and password of a registry's user.
///
/// In a configuration file it has a `name`, and one of `password` and `password_file`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Fields")]
#[non_exhaustive]
pub struct User {
    /// The name.
    pub name: String,
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

    /// A user whose password is in a file, which is read for every log-in.
    ///
    /// A line end behind the password is not part of it.
    pub fn from_file(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), password: Password::File(path.into()) }
    }

    /// The password as it is now.
    ///
    /// # Errors
    ///
    /// `Config`: its file cannot be read.
    pub fn password(&self) -> Result<Secret> {
        match &self.password {
            Password::Text(password) => Ok(password.clone()),
            Password::File(path) => Secret::read(path).map_err(|cause| {
                refused(format!("password-file: cannot read {path:?}")).with_source(cause)
            }),
        }
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, "registry", "configure").with_message(message)
}
